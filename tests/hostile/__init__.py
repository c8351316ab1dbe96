"""Test the bench that sends hostile input."""
