"""Mirrors service/rates."""
