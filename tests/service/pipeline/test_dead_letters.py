"""Dead letters: the reason, and the original to replay."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
from faststream.redis.parser import BinaryMessageFormatV1
from hypothesis import given
from hypothesis import strategies as st

from service.bus.envelope import open_entry
from service.pipeline.dead_letters import dead_letter, fields_of
from service.pipeline.decode import Slot, Unreadable, events_of

WHY = Unreadable("invalid_event", "no reason")
NOW_MS = 1_700_000_000_000

values = st.one_of(st.binary(max_size=20), st.text(max_size=20).map(str.encode))


def test_fields_are_those_of_the_entry() -> None:
    """Who looks at a dead letter could not find the entry, or would not learn why it is here."""
    entry = open_entry(b"5-1", {b"event": b"{"}, deliveries=3)
    letter = dead_letter(entry, WHY, stream="deltaloom:deltas", now_ms=NOW_MS)
    assert letter.model_dump() == {
        "schema": 1,
        "source": None,
        "reason": "invalid_event",
        "error": "no reason",
        "stream": "deltaloom:deltas",
        "entry_id": "5-1",
        "deliveries": 3,
        "failed_at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "entry": '{"event": "{"}',
    }


@given(st.dictionaries(st.text(max_size=8).map(str.encode), values, max_size=4))
def test_entry_can_be_written_again(fields: dict[bytes, bytes]) -> None:
    """A replay would write something else than the producer did."""
    letter = dead_letter(open_entry(b"5-1", fields), WHY, stream="s", now_ms=NOW_MS)
    assert {name.encode(): value for name, value in fields_of(letter.entry).items()} == fields


@given(st.dictionaries(values, values, max_size=4))
def test_any_entry_can_be_a_dead_letter(fields: dict[bytes, bytes]) -> None:
    """A name or a value of any bytes would stop the worker."""
    letter = dead_letter(open_entry(b"5-1", fields), WHY, stream="s", now_ms=NOW_MS)
    letter.model_dump_json().encode()
    fields_of(letter.entry)


@pytest.mark.parametrize("delta", ["x", "é😀", "a\ud83d"])
def test_one_event_of_an_array_is_alone_in_its_letter(delta: str) -> None:
    """A replay would bring the array's good events back, too."""
    body = json.dumps([{"type": "a"}, {"type": "b", "delta": delta}]).encode()
    entry = open_entry(b"5-1", {b"event": body, b"response_id": b"resp_1", b"other": b"\xff"})
    slot = events_of(entry, 1000, 1000)[1]
    again = fields_of(dead_letter(entry, WHY, stream="s", now_ms=NOW_MS, only=slot).entry)
    assert json.loads(again.pop("event")) == {"type": "b", "delta": delta}
    assert again == {"response_id": b"resp_1", "other": b"\xff"}


def test_headers_of_an_envelope_become_fields() -> None:
    """A replay of one event of an array would not know its response."""
    headers = {"response_id": "resp_1", "tenant": "header", "other": "x"}
    encoding = BinaryMessageFormatV1.encode(
        message=[1, 2], reply_to=None, headers=headers, correlation_id="c-1"
    )
    entry = open_entry(b"5-1", {b"__data__": asyncio.run(encoding), b"tenant": b"field"})
    again = fields_of(dead_letter(entry, WHY, stream="s", now_ms=NOW_MS, only=Slot(2)).entry)
    assert again == {"event": b"2", "response_id": b"resp_1", "tenant": b"field"}


def test_whole_envelope_is_kept_as_it_was() -> None:
    """A replay would lose the headers."""
    data = BinaryMessageFormatV1.IDENTITY_HEADER + b"\xff"
    letter = dead_letter(open_entry(b"5-1", {b"__data__": data}), WHY, stream="s", now_ms=NOW_MS)
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
