"""Tests of the whole flow on a real server, which `tests/server.py` chooses."""
