"""Tests that mirror service/alerts/deciding."""
