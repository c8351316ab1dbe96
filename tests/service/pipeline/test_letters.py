"""Test the content of dead letters: the reason, and the original entry for a replay."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from faststream.redis.parser import BinaryMessageFormatV1
from hypothesis import given
from hypothesis import strategies as st

from handlers import BUILT_IN
from handlers.core.routing import RoutingTable
from service.bus.envelope import open_entry
from service.field_json import fields_of
from service.pipeline.batch import Batch
from service.pipeline.decode import Unreadable
from service.pipeline.decoded_batch import DecodedBatch
from service.pipeline.entry_opener import OpenedEntry
from service.pipeline.event_router import EventRouter
from service.pipeline.letters import COPIED_BYTES, Letters
from tests.service.pipeline.model import batch_of
from tests.streams import raw

if TYPE_CHECKING:
    from deltaloom.messages import DeadLetter

TABLE = RoutingTable(BUILT_IN.values())
WHY = Unreadable("invalid_event", "no reason")
NOW_MS = 1_700_000_000_000

values = st.one_of(st.binary(max_size=20), st.text(max_size=20).map(str.encode))


ROUTER = EventRouter(
    TABLE,
    open_entry,
    stream="deltaloom:deltas",
    max_event_bytes=9999,
    max_array_length=9,
    max_response_parts=512,
)


def whole(fields: dict[bytes, bytes], deliveries: int = 1) -> DeadLetter:
    """Return the dead letter of a whole entry."""
    raw_entry = raw(b"5-1", fields)
    decoded = DecodedBatch.unread(ROUTER.rules, [raw_entry])
    batch = Batch(decoded, ROUTER, now_ms=NOW_MS, deliveries={b"5-1": deliveries}, dead_letter=WHY)
    ((_, letter),) = batch.commit.dead_letters
    return letter


def test_fields_are_those_of_the_entry() -> None:
    """Identify the entry and the reason in the dead letter's fields."""
    letter = whole({b"event": b"{"}, deliveries=3)
    assert letter.model_dump() == {
        "schema": 1,
        "source": None,
        "reason": "invalid_event",
        "error": "no reason",
        "stream": "deltaloom:deltas",
        "entry_id": "5-1",
        "deliveries": 3,
        "failed_at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "entry": '{"event":"{"}',
        "entry_bytes": None,
    }


@given(st.dictionaries(st.text(max_size=8).map(str.encode), values, max_size=4))
def test_entry_can_be_written_again(fields: dict[bytes, bytes]) -> None:
    """Keep names and values of an entry byte for byte, so that a replay writes the same entry."""
    letter = whole(fields)
    assert {name.encode(): value for name, value in fields_of(letter.entry).items()} == fields


@given(st.dictionaries(values, values, max_size=4))
def test_any_entry_can_be_a_dead_letter(fields: dict[bytes, bytes]) -> None:
    """Make a dead letter of an entry of any bytes. Otherwise it would stop the worker."""
    letter = whole(fields)
    letter.model_dump_json().encode()
    fields_of(letter.entry)


def letters_of(fields: dict[bytes, bytes]) -> list[DeadLetter]:
    """Return the dead letters of an entry with these fields."""
    batch = batch_of([open_entry(b"5-1", fields)], TABLE)
    return [letter for _, letter in batch.commit.dead_letters]


@pytest.mark.parametrize("delta", ["x", "é😀", "a\ud83d"])
def test_one_event_of_an_array_is_alone_in_its_letter(delta: str) -> None:
    """Keep only the bad event in its letter. Otherwise a replay would repeat its good neighbours."""
    body = json.dumps([{"type": "a"}, {"type": 7, "delta": delta}]).encode()
    (letter,) = letters_of({b"event": body, b"response_id": b"resp_1", b"other": b"\xff"})
    again = fields_of(letter.entry)
    assert json.loads(again.pop("event")) == {"type": 7, "delta": delta}
    assert again == {"response_id": b"resp_1"}


def test_headers_of_an_envelope_become_fields() -> None:
    """Copy the envelope's headers into fields, so that a replayed event knows its response."""
    headers = {"response_id": "resp_1", "tenant": "header", "other": "x"}
    encoding = BinaryMessageFormatV1.encode(
        message=[1, {"type": "a"}], reply_to=None, headers=headers, correlation_id="c-1"
    )
    (letter,) = letters_of({b"__data__": asyncio.run(encoding), b"tenant": b"field"})
    assert fields_of(letter.entry) == {"event": b"1", "response_id": b"resp_1", "tenant": b"field"}


def test_whole_envelope_is_kept_as_it_was() -> None:
    """Keep a whole envelope byte for byte. Otherwise a replay would lose its headers."""
    data = BinaryMessageFormatV1.IDENTITY_HEADER + b"\xff"
    letter = whole({b"__data__": data})
    assert fields_of(letter.entry) == {"__data__": data}


def opened(body: bytes, why: Unreadable | None = None, **context: bytes) -> OpenedEntry:
    """Return an opened entry with this body and context; `why` is the error if it cannot be opened."""
    fields = {b"event": body, **{name.encode(): value for name, value in context.items()}}
    return OpenedEntry(open_entry(b"5-1", fields), ROUTER, why)


def test_letter_about_one_event_of_an_array_has_that_event() -> None:
    """Repeat the event and the context, but not the context again and again: its copies are bounded."""
    letters = Letters("deltaloom:deltas", NOW_MS)
    entry = opened(b'[{"a":1},{"b":2}]', response_id=b"resp_1", tenant=b"t" * 200)
    first = letters.letter(0, entry, 1, WHY)
    context = {"response_id": b"resp_1", "tenant": b"t" * 200}
    assert fields_of(first.entry) == {"event": b'{"b":2}', **context}
    others = [letters.letter(0, entry, 0, WHY) for _ in range(COPIED_BYTES // 200)]
    assert fields_of(others[-1].entry) == {"event": b'{"a":1}', "response_id": b"resp_1"}
    assert letters.all() == []


@pytest.mark.parametrize("why", [None, WHY], ids=["one event", "cannot be opened"])
def test_letter_about_a_single_event_has_the_whole_entry(why: Unreadable | None) -> None:
    """Repeat an entry with one event as it was, and so one that cannot be opened."""
    letters = Letters("deltaloom:deltas", NOW_MS)
    letter = letters.letter(0, opened(b'{"a":1}', why, other=b"x"), 0, WHY)
    assert fields_of(letter.entry) == {"event": b'{"a":1}', "other": b"x"}


def test_entry_without_errors_gets_no_letter() -> None:
    """Write nothing for an entry whose errors are already written."""
    letters = Letters("deltaloom:deltas", NOW_MS)
    letters.add(0, None, WHY)
    assert letters.wants(0)
    for _ in range(2):
        letters.write(0, opened(b"{"))
    assert not letters.wants(0)
    assert len(letters.all()) == 1


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "{",
        "[1]",
        "1",
        "null",
        '{"a": 1}',
        '{"a": {"x": ""}}',
        '{"a": {"base64": 1}}',
        '{"a": {"base64": "!"}}',
    ],
)
def test_invalid_letter_is_refused(entry: str) -> None:
    """Raise ValueError for an edited, invalid letter. Otherwise the replay command would show a traceback."""
    with pytest.raises(ValueError, match=r".*"):
        fields_of(entry)
