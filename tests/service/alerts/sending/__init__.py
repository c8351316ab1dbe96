"""Tests that mirror service/alerts/sending."""
