"""Test surrogate halves: kept, joined, replaced."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core.text import repair, sha256_digest, text_digest
from tests.strategies import any_text, cut_by_code_unit, whole_text


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("", ""),
        ("plain", "plain"),
        ("é😀", "é😀"),
        ("\ud83d\ude00", "😀"),
        ("a\ud83d", "a\ufffd"),
        ("\ude00a", "\ufffda"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
        ("\x00\ufeff", "\x00\ufeff"),
    ],
)
def test_repair(text: str, repaired: str) -> None:
    """Join halves and replace lone ones."""
    assert repair(text) == repaired


@given(any_text)
def test_repaired_text_can_be_encoded_and_stays(text: str) -> None:
    """Return encodable text, and leave it unchanged when it is repaired again."""
    repaired = repair(text)
    assert repaired.encode().decode() == repaired
    assert repair(repaired) == repaired


@given(whole_text, st.data())
def test_pieces_make_the_whole_again(text: str, data: st.DataObject) -> None:
    """Restore a text that is cut at any code unit."""
    assert repair("".join(data.draw(cut_by_code_unit(text)))) == text


def test_digest_is_the_beginning_of_the_sha_256() -> None:
    """Use the beginning of the SHA-256. Otherwise later versions could not compare digests."""
    assert text_digest("abc") == "ungWv4"
    assert text_digest("é😀") == sha256_digest(sha256("é😀".encode()).hexdigest())
    assert sha256_digest("FF" * 32) == sha256_digest("ff" * 32) == "______"


@given(any_text, any_text)
def test_digests_of_different_texts_differ(one: str, other: str) -> None:
    """Give different texts different digests."""
    assert (text_digest(repair(one)) == text_digest(repair(other))) == (repair(one) == repair(other))
