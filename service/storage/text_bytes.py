"""Encode texts that may have lone surrogates, which UTF-8 alone cannot encode."""

from __future__ import annotations


def to_bytes(text: str) -> bytes:
    """Encode `text` as UTF-8, lone surrogates included, so that none is lost before a text is repaired."""
    return text.encode("utf-8", "surrogatepass")


def from_bytes(data: bytes) -> str:
    """Decode the result of `to_bytes`, lone surrogates included.

    Raises:
        UnicodeDecodeError: the data is no such result.
    """
    return data.decode("utf-8", "surrogatepass")
