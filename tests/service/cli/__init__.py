"""Tests of the command `deltaloom` that need no server."""
