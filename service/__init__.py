"""The worker and the relay: they connect the handlers to Redis, with FastStream and a command line."""
