"""Tests of the scripts' guarantees, by topic, on a real server and without worker processes."""
