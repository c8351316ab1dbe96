"""Test the code that the handlers share."""
