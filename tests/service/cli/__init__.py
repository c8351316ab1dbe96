"""Test the command `deltaloom` without a server."""
