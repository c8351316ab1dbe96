"""Test the encoding of texts that may have lone surrogates."""

from __future__ import annotations

from hypothesis import given

from service.storage.text_bytes import from_bytes, to_bytes
from tests.strategies import any_text


@given(any_text)
def test_bytes_lose_nothing(text: str) -> None:
    """Keep lone surrogates in bytes."""
    assert from_bytes(to_bytes(text)) == text
