"""Mirrors service/alerts/sending."""
