"""The worker: it does what the handlers ask for, with FastStream, Redis and a command line."""
