"""Test the records that the archiver makes of entries."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.record import (
    MAX_UNREADABLE,
    SEARCHABLE,
    EntryPlace,
    NotAMessageError,
    record_of,
    unreadable,
)
from tests.archive.made import NOW, fields_of


def test_a_record_keeps_the_message_as_it_was_written() -> None:
    """Keep the bytes of the JSON, with fields that this version does not know."""
    fields = fields_of(later={"a": [1]}, tenant="acme", text="no\0 \ud83d", reference="x" * 1025)
    record = record_of("text", "elsewhere", fields, NOW)
    assert record.body == fields[1]
    assert (record.source, record.id, record.tenant, record.at) == ("deltaloom", "text_1", "acme", NOW)
    assert record.words == "no\ufffd ?"
    assert record.reference is None


def test_a_message_without_a_source_has_that_of_its_stream() -> None:
    """Take the prefix as the source of a message of version 0.1."""
    assert record_of("text", "elsewhere", fields_of(source=None), NOW).source == "elsewhere"


def test_the_digest_depends_on_the_values_only() -> None:
    """Count a message with other white space and another order of fields as the same."""
    first = record_of("text", "a", [b"__data__", b'{"id": "1", "text": "x"}'], NOW)
    second = record_of("text", "a", [b"__data__", b'{"text":"x","id":"1"}'], NOW)
    third = record_of("text", "a", [b"__data__", b'{"text":"y","id":"1"}'], NOW)
    assert first.digest == second.digest != third.digest


@pytest.mark.parametrize(
    "written", ["9999-12-31T00:00:00Z", "1999-01-01T00:00:00Z", "soon", 5, "2026-11-30T11:00:00"]
)
def test_a_wrong_time_is_not_believed(written: object) -> None:
    """Take the present time in place of one that would make a partition far away, or is none."""
    assert record_of("text", "a", fields_of(finished_at=written), NOW).at == NOW


def test_the_time_of_a_delivery_is_its_end() -> None:
    """Prefer the time of the confirmation to that of the alert."""
    fields = fields_of(raised_at="2026-11-30T10:00:00Z", delivered_at="2026-11-30T11:00:00+01:00")
    assert record_of("delivery", "a", fields, NOW).at == datetime(2026, 11, 30, 10, tzinfo=UTC)
    assert record_of("delivery", "a", fields_of(raised_at="2026-11-29T10:00:00Z"), NOW).at.day == 29


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([b"type", b"x"], "no field __data__"),
        ([b"__data__", b"{secret"], "not JSON"),
        ([b"__data__", b'"secret"'], "not a JSON object"),
        ([b"__data__", b'{"text": "secret"}'], "no id"),
        ([b"__data__", b"[" * 100_000], "not JSON"),
        ([b"__data__", b'{"id": "1", "secret": ' + b"[" * 900 + b"]" * 900 + b"}"], None),
        ([b"__data__", b"\xff"], "not JSON"),
    ],
)
def test_an_entry_that_is_no_message_says_why_without_its_words(fields: list[bytes], why: str | None) -> None:
    """Refuse what has no id or is no object; the reason repeats nothing of the entry."""
    if why is None:
        assert record_of("text", "a", fields, NOW).id == "1"
        return
    with pytest.raises(NotAMessageError, match=why) as raised:
        record_of("text", "a", fields, NOW)
    assert "secret" not in str(raised.value)


def test_of_an_unreadable_entry_the_beginning_is_kept() -> None:
    """Keep at most some bytes, and the response, by which it can be erased."""
    kept = unreadable(
        EntryPlace("s", "1-0"), [b"response_id", b"resp_1", b"__data__", b"\xff" * 10**6], "it is bad"
    )
    assert kept.response_id == "resp_1"
    assert json.loads(kept.body)["__data__"].startswith("\\xff")
    assert len(kept.body) < 6 * MAX_UNREADABLE


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=20)), st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_any_entry_is_a_record_or_unreadable(odd: list[bytes], values: dict[str, object]) -> None:
    """Raise nothing but `NotAMessageError`, and make values that every database can store."""
    for fields in (odd, [b"__data__", json.dumps({"id": "1", **values}).encode()]):
        unreadable(EntryPlace("s", "1-0"), fields, "").body.decode()
        try:
            record = record_of("text", "a", fields, NOW)
        except NotAMessageError:
            continue
        for value in record:
            if isinstance(value, str):
                assert "\0" not in value
                value.encode()
        assert len(record.words) <= SEARCHABLE
