"""Tests of the pure core, without a server."""
