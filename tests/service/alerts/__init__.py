"""Tests that mirror service/alerts."""
