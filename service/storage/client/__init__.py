"""Clients of Redis: connections, clusters, sentinels, and errors that mean it is unavailable."""
