"""Tests of the batch pipeline, without a server."""
