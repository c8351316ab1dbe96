"""An entry's fields as JSON, and the beginning that a dead letter keeps of an entry that is too large."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.field_json import as_json, beginning_of, fields_of, json_of

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


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("unit", [b'"', b"\\", b"\n", b"\x01", b'"",', b"a", "é".encode(), b"\xff"])
def test_a_value_is_not_much_longer_as_json(unit: bytes, size: int) -> None:
    """The letter of a large entry would be several times as large."""
    value = unit * (size // len(unit))
    written = json.dumps(as_json(value), ensure_ascii=False).encode()
    most = 2 * len(value) if size < 64 * 1024 else len(value) * 4 // 3
    assert len(written) <= most + 30
    assert fields_of(json_of({b"event": value})) == {"event": value}


def test_a_small_event_stays_readable() -> None:
    """Nobody wants to decode base64 to see what is wrong with an event."""
    assert as_json(b'{"a":"b"}') == '{"a":"b"}'
