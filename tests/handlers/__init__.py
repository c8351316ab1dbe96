"""Test the pure core, without a server."""
