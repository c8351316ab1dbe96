"""Mirrors service/alerts."""
