"""The beginning of an entry's fields: what a dead letter keeps of an entry that is too large."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.field_json import beginning_of

TEXTS = st.text(st.sampled_from("aé€😀"), max_size=12).map(str.encode)
FIELDS = st.dictionaries(TEXTS, TEXTS, max_size=5)


def size_of(fields: dict[bytes, bytes]) -> int:
    """Return the bytes of all names and values."""
    return sum(len(name) + len(value) for name, value in fields.items())


@given(FIELDS, st.integers(0, 100))
def test_the_beginning_has_at_most_so_many_bytes_and_as_many_as_fit(
    fields: dict[bytes, bytes], at_most: int
) -> None:
    """A letter would be too large, or less would be kept than could be."""
    kept = beginning_of(fields, at_most)
    assert size_of(kept) <= at_most
    if size_of(fields) <= at_most and len(fields) == len(kept):
        assert kept == fields
    assert list(kept) == list(fields)[: len(kept)]
    for name, value in kept.items():
        assert fields[name].startswith(value)
    for (name, value), _ in pairwise(kept.items()):
        assert value == fields[name], "only the last one is cut"


@given(FIELDS, st.integers(0, 100))
def test_no_character_is_cut(fields: dict[bytes, bytes], at_most: int) -> None:
    """A text that ends within a character is no UTF-8: all of it would be written as base64."""
    for value in beginning_of(fields, at_most).values():
        value.decode("utf-8")


def test_bytes_that_are_no_text_are_cut_anywhere() -> None:
    """Continuation bytes without a beginning would be skipped without end."""
    assert beginning_of({b"a": b"\x80" * 20}, 11) == {b"a": b"\x80" * 7}
