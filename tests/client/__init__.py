"""Test the library that producers and subscribers install."""
