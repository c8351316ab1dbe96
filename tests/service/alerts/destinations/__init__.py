"""Test destinations against real servers with all kinds of failures."""
