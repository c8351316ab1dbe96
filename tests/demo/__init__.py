"""Test the demo without its server, worker and relay; `tests/integration/test_demo.py` runs it whole."""
