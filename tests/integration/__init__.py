"""The whole flow over a real server; tests/server.py says which."""
