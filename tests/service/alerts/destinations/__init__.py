"""Destinations, against real servers that fail in every way."""
