"""Test the distribution: wheels, names and locks."""
