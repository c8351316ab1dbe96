"""Dead letters: the reason, and the original to replay."""

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
from service.pipeline.gathering import Gathered
from service.pipeline.sources import Reading
from tests.service.pipeline.model import batch_of
from tests.streams import raw

if TYPE_CHECKING:
    from deltaloom.messages import DeadLetter

TABLE = RoutingTable(BUILT_IN.values())
WHY = Unreadable("invalid_event", "no reason")
NOW_MS = 1_700_000_000_000

values = st.one_of(st.binary(max_size=20), st.text(max_size=20).map(str.encode))


def whole(fields: dict[bytes, bytes], deliveries: int = 1) -> DeadLetter:
    """The dead letter of all of an entry."""
    raw_entry = raw(b"5-1", fields)
    reading = Reading(
        TABLE,
        open_entry,
        stream="deltaloom:deltas",
        max_event_bytes=9999,
        max_array_length=9,
        max_response_parts=512,
    )
    gathered = Gathered.unread(reading.rules, [raw_entry])
    batch = Batch(gathered, reading, now_ms=NOW_MS, deliveries={b"5-1": deliveries}, bury=WHY)
    ((_, letter),) = batch.commit.dead_letters
    return letter


def test_fields_are_those_of_the_entry() -> None:
    """Who looks at a dead letter could not find the entry, or would not learn why it is here."""
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
    """A replay would write something else than the producer did."""
    letter = whole(fields)
    assert {name.encode(): value for name, value in fields_of(letter.entry).items()} == fields


@given(st.dictionaries(values, values, max_size=4))
def test_any_entry_can_be_a_dead_letter(fields: dict[bytes, bytes]) -> None:
    """A name or a value of any bytes would stop the worker."""
    letter = whole(fields)
    letter.model_dump_json().encode()
    fields_of(letter.entry)


def letters_of(fields: dict[bytes, bytes]) -> list[DeadLetter]:
    """The dead letters of an entry with these fields."""
    batch = batch_of([open_entry(b"5-1", fields)], TABLE)
    return [letter for _, letter in batch.commit.dead_letters]


@pytest.mark.parametrize("delta", ["x", "é😀", "a\ud83d"])
def test_one_event_of_an_array_is_alone_in_its_letter(delta: str) -> None:
    """A replay would bring the array's good events back, too."""
    body = json.dumps([{"type": "a"}, {"type": 7, "delta": delta}]).encode()
    (letter,) = letters_of({b"event": body, b"response_id": b"resp_1", b"other": b"\xff"})
    again = fields_of(letter.entry)
    assert json.loads(again.pop("event")) == {"type": 7, "delta": delta}
    assert again == {"response_id": b"resp_1"}


def test_headers_of_an_envelope_become_fields() -> None:
    """A replay of one event of an array would not know its response."""
    headers = {"response_id": "resp_1", "tenant": "header", "other": "x"}
    encoding = BinaryMessageFormatV1.encode(
        message=[1, {"type": "a"}], reply_to=None, headers=headers, correlation_id="c-1"
    )
    (letter,) = letters_of({b"__data__": asyncio.run(encoding), b"tenant": b"field"})
    assert fields_of(letter.entry) == {"event": b"1", "response_id": b"resp_1", "tenant": b"field"}


def test_whole_envelope_is_kept_as_it_was() -> None:
    """A replay would lose the headers."""
    data = BinaryMessageFormatV1.IDENTITY_HEADER + b"\xff"
    letter = whole({b"__data__": data})
    assert fields_of(letter.entry) == {"__data__": data}


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
def test_what_is_no_entry_is_refused(entry: str) -> None:
    """The command that replays would end in a traceback, for a letter that someone has edited."""
    with pytest.raises(ValueError, match=r".*"):
        fields_of(entry)
