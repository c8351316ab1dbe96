"""Tests that mirror checks."""
