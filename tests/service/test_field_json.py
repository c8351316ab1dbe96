"""Test an entry's fields as JSON, and the beginning of them that a dead letter keeps."""

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
    """Return the total number of bytes of all names and values."""
    return sum(len(name) + len(value) for name, value in fields.items())


@given(FIELDS, st.integers(0, 100))
def test_the_beginning_is_as_long_as_the_limit_allows(fields: dict[bytes, bytes], at_most: int) -> None:
    """Keep as many bytes as fit into the limit and never more. Only the last value is cut."""
    kept = beginning_of(fields, at_most)
    assert size_of(kept) <= at_most
    if size_of(fields) <= at_most and len(fields) == len(kept):
        assert kept == fields
    assert list(kept) == list(fields)[: len(kept)]
    for name, value in kept.items():
        assert fields[name].startswith(value)
    for (name, value), _ in pairwise(kept.items()):
        assert value == fields[name], "only the last value is cut"


@given(FIELDS, st.integers(0, 100))
def test_no_character_is_cut(fields: dict[bytes, bytes], at_most: int) -> None:
    """Cut between characters. Otherwise the text would not be valid UTF-8 and would be written as base64."""
    for value in beginning_of(fields, at_most).values():
        value.decode("utf-8")


def test_invalid_utf_8_is_cut_anywhere() -> None:
    """Cut invalid UTF-8 at any byte.

    Otherwise continuation bytes without a lead byte would all be removed.
    """
    assert beginning_of({b"a": b"\x80" * 20}, 11) == {b"a": b"\x80" * 7}


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("unit", [b'"', b"\\", b"\n", b"\x01", b'"",', b"a", "é".encode(), b"\xff"])
def test_a_value_is_not_much_longer_as_json(unit: bytes, size: int) -> None:
    """Limit the growth of a value, else the letter of a large entry is several times as large."""
    value = unit * (size // len(unit))
    written = json.dumps(as_json(value), ensure_ascii=False).encode()
    most = 2 * len(value) if size < 64 * 1024 else len(value) * 4 // 3
    assert len(written) <= most + 30
    assert fields_of(json_of({b"event": value})) == {"event": value}


@pytest.mark.parametrize("length", [1, 40, 200_000])
@pytest.mark.parametrize("unit", [b'"', b"\\", b"\x01", b"a", "é".encode(), b"\xff", b"a\xff"])
def test_names_are_not_much_longer_as_json(unit: bytes, length: int) -> None:
    """Limit the growth of many or long names. An escape takes up to six bytes for one."""
    names = [b"%07d" % number + (unit * length)[:length] for number in range(1 + 80_000 // (7 + length))]
    written = json_of(dict.fromkeys(names, b"")).encode()
    assert len(written) <= sum(2 * len(name) + len(b'"base64:":"",') for name in names) + 2
    assert len(fields_of(written.decode())) == len(names), "no two names become one"


def test_a_short_name_stays_readable() -> None:
    """Escape only the bytes of a name that are not UTF-8."""
    assert json_of({b"caf\xe9": b""}) == '{"caf\\\\xe9":""}'


def test_a_small_event_stays_readable() -> None:
    """Keep a small event as text, so that a person can read it."""
    assert as_json(b'{"a":"b"}') == '{"a":"b"}'
