"""Tests of the way of a batch, without a server."""
