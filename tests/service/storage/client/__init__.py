"""Tests that mirror service/storage/client."""
