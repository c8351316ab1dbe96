"""Test the embedded server."""
