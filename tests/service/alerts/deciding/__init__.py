"""Mirrors service/alerts/deciding."""
