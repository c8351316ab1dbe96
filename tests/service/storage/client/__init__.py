"""Mirrors service/storage/client."""
