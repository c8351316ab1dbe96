"""Tests of the promises of the scripts, by topic, on a real server and without processes."""
