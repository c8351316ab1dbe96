"""Tests that mirror service/rates."""
