"""Deliver alerts: when, how many at once, and again until they are taken."""
