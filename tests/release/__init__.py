"""Test the release script."""
