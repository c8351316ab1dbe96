"""Test hostile entries: time, memory and dead-letter bytes grow linearly with an entry's size."""

from __future__ import annotations

import gc
import json
import math
import struct
import time
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, get_args

import pytest
from faststream.redis.parser import BinaryMessageFormatV1
from hypothesis import given
from hypothesis import strategies as st

from deltaloom import limits
from deltaloom.messages import KnownDeadLetterReason
from handlers import BUILT_IN
from handlers.core.assembly import StoredClosing
from handlers.core.effects import CONTEXT_NAMES, Rank
from handlers.core.identity import Arrival, EntryId
from handlers.core.routing import RoutingTable
from service.bus.envelope import MAX_HEADER_BYTES, MAX_HEADERS, open_entry
from service.field_json import fields_of
from service.pipeline.batch import Batch
from service.pipeline.decode import Unreadable
from service.pipeline.decoded_batch import MAX_ENTRY_SIZE_FACTOR, DecodedBatch
from service.pipeline.event_router import EventRouter
from service.pipeline.letters import COPIED_BYTES, ERROR_LENGTH, OWN_LETTERS
from service.ports.commit import PartChange
from tests.streams import raw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltaloom.messages import DeadLetter
    from service.ports.storage import Entry

TABLE = RoutingTable(BUILT_IN.values())
MAX_EVENT = 128 * 1024
LETTER = 100 + 4 * ERROR_LENGTH
"""Maximum bytes of a letter beyond its event, its context and its fixed fields."""

Headers = list[tuple[bytes, bytes]]
WITHOUT_ID = b'{"type":"response.refusal.delta","delta":"x","output_index":0,"content_index":0}'


def enveloped(headers: Headers, body: bytes) -> bytes:
    """Return an envelope in FastStream's format, with headers that FastStream might not write."""
    strings = [string for pair in headers for string in pair]
    head = struct.pack(">H", len(headers)) + b"".join(
        struct.pack(">H", len(string)) + string for string in strings
    )
    magic = BinaryMessageFormatV1.IDENTITY_HEADER
    start = len(magic) + 10
    return magic + struct.pack(">HII", 1, start, start + len(head)) + head + body


class Opens(Counter[bytes]):
    """Number of times that each entry was opened, by entry id."""

    def __call__(self, entry_id: bytes, fields: Mapping[bytes, bytes], deliveries: int) -> Entry:
        """Count and open an entry."""
        self[entry_id] += 1
        return open_entry(entry_id, fields, deliveries)


def read(*entries: Mapping[bytes, bytes], opens: Opens | None = None) -> Batch:
    """Return the batch that a worker decodes from entries with these fields."""
    opener = Opens() if opens is None else opens
    reading = EventRouter(
        TABLE, opener, stream="s", max_event_bytes=MAX_EVENT, max_array_length=10_000, max_response_parts=512
    )
    raws = [raw(f"{number}-0".encode(), dict(fields)) for number, fields in enumerate(entries, 1)]
    return Batch(DecodedBatch.of(reading.rules, raws), reading, now_ms=1)


def letters(batch: Batch) -> list[DeadLetter]:
    """Return the dead letters of a batch."""
    return [letter for _, letter in batch.commit.dead_letters]


def array(*events: bytes) -> bytes:
    """Return the JSON array of these events."""
    return b"[" + b",".join(events) + b"]"


# -------------------------------------------------------------------------------------------- opening entries


@pytest.mark.parametrize("bad", [b"1", WITHOUT_ID])
def test_an_entry_is_opened_once(bad: bytes) -> None:
    """Open an entry once. Otherwise 24 kB of bad events would block a worker for half a minute."""
    opens, body = Opens(), array(*[bad] * 2000)
    batch = read({b"__data__": enveloped([(b"", b"")] * 900, body)}, {b"event": body}, opens=opens)
    assert [opens[b"1-0"], opens[b"2-0"]] == [1, 1]
    for index, _ in batch.commit.dead_letters:
        batch.producer_context(index)
    assert max(opens[b"1-0"], opens[b"2-0"]) <= 2


def test_parts_that_are_rejected_together_open_each_entry_once() -> None:
    """Open an entry once for all rejected parts.

    Otherwise arrays of many parts would be read once per part.
    """
    delta = {"type": "response.refusal.delta", "delta": "x", "output_index": 0}
    body = json.dumps([{**delta, "content_index": index} for index in range(200)]).encode()
    entry = {b"event": body, b"response_id": b"resp_1"}
    opens = Opens()
    batch = read(entry, entry, opens=opens)
    assert not opens[b"1-0"]
    (response,) = batch.commit.responses.values()
    batch.reject_parts({part: Unreadable("oversized", "too large") for part in list(response.parts)})
    assert (opens[b"1-0"], opens[b"2-0"]) == (1, 1)
    assert len(letters(batch)) == 2 * (OWN_LETTERS + 1)


# -------------------------------------------------------------------------------------------------- envelopes


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([(b"x", b"")] * MAX_HEADERS, None),
        ([(b"x", b"")] * (MAX_HEADERS + 1), f"the envelope has {MAX_HEADERS + 1} headers in 5007 bytes"),
        ([(b"x", b"y" * 60_000)], None),
        ([(b"x", b"y" * 60_000)] * 2, "the envelope has 2 headers in 120012 bytes"),
    ],
)
def test_headers_have_a_limit(headers: Headers, why: str | None) -> None:
    """Limit number and bytes of headers. Otherwise one entry could have 65,535 headers of 64 kB."""
    found = letters(read({b"__data__": enveloped(headers, b'{"type": "x"}')}))
    most = f"at most {MAX_HEADERS} headers in {MAX_HEADER_BYTES} bytes"
    assert [(each.reason, each.error) for each in found] == ([("oversized", f"{why}; {most}")] if why else [])


def test_entry_with_too_many_headers_can_be_replayed() -> None:
    """Keep the whole entry in the dead letter, so that it can be replayed."""
    fields = {b"__data__": enveloped([(b"x", b"y")] * 5000, b"{}"), b"other": b"\xff"}
    (letter,) = letters(read(fields))
    assert {name.encode(): value for name, value in fields_of(letter.entry).items()} == fields


# -------------------------------------------------------------------------------------- bytes of dead letters

wide = st.sampled_from(["", "a", "é", "😀", "\x01", '"', "\\"]).flatmap(
    lambda unit: st.integers(0, 6000).map(lambda times: unit * times)
)
bad_events = st.sampled_from([b"1", b"{}", b'""', b"nonsense", b"1e400", WITHOUT_ID, b'"\\u00e9"', b'"\xff"'])
good_events = st.sampled_from([b'{"type":"x"}', b'{"type":"response.created"}'])
bodies = st.lists(st.tuples(bad_events | good_events, st.integers(0, 300)), max_size=4).map(
    lambda runs: array(*[event for event, times in runs for _ in range(times)])
)


contexts = st.dictionaries(st.sampled_from([*CONTEXT_NAMES, "response_id", "other"]), wide)


@given(bodies, contexts, st.booleans())
def test_bytes_of_letters_are_bounded(body: bytes, context: dict[str, str], in_headers: bool) -> None:  # noqa: FBT001
    """Bound dead letters. Otherwise 87 kB would make 191 MB of them: docs/reliability.md has the factors."""
    metadata = {name.encode(): value.encode()[:30_000] for name, value in context.items()}
    entry = {b"event": body, **metadata}
    if in_headers:
        entry = {b"__data__": enveloped(list(metadata.items()), body)}
    size = sum(len(name) + len(value) for name, value in entry.items())
    found = letters(read(entry))
    stored = sum(len(each.entry.encode()) + len(each.error.encode()) for each in found)
    assert len(found) <= OWN_LETTERS + len(get_args(KnownDeadLetterReason))
    assert stored <= 3 * (size + COPIED_BYTES) + len(found) * LETTER


def test_contexts_that_are_too_long_are_not_copied() -> None:
    """Leave out contexts beyond the limits. Otherwise each of 2,500 letters would cost 80 kB."""
    metadata = {name.encode(): ("😀" * 4096).encode() for name in CONTEXT_NAMES[:5]}
    found = letters(read({b"event": array(*[b"1"] * 2500), b"response_id": b"r", **metadata}))
    assert len(found) == OWN_LETTERS + 1
    assert sum(len(each.entry.encode()) for each in found) < 20_000


def test_longest_context_is_copied_a_bounded_number_of_times() -> None:
    """Bound the total of copied contexts. Otherwise a context of 17 kB would be stored 100 times."""
    metadata = {name.encode(): b"x" * most for name, most in limits.CONTEXT.items()}
    found = letters(read({b"event": array(*[b"1"] * 1000), **metadata}))
    assert len(found) < 25
    assert sum(len(each.entry.encode()) for each in found) < 3 * COPIED_BYTES
    assert fields_of(found[-1].entry)["event"].count(b"1") == 1000 - len(found) + 1


def test_letters_of_an_array_hold_each_bad_event_once() -> None:
    """Keep each bad event once, byte for byte. Otherwise a replay would lose or repeat events."""
    numbers = [str(n).encode() for n in range(150)]
    broken = [b'{"n": %d,}' % n for n in range(150)]
    good = b'{"type": "x"}'
    body = array(*[event for pair in zip(numbers, broken, strict=True) for event in (*pair, good)])
    found = letters(read({b"event": body, b"response_id": b"resp_1"}))
    assert [(each.reason, each.error[:40]) for each in found[OWN_LETTERS:]] == [
        ("invalid_event", "100 more events of one array; the first "),
        ("malformed_json", "100 more events of one array; the first "),
    ]
    fields = [fields_of(each.entry) for each in found]
    assert all(each["response_id"] == b"resp_1" for each in fields)
    events = [each["event"] for each in fields[:OWN_LETTERS]]
    for each in fields[OWN_LETTERS:]:
        again = letters(read({name.encode(): value for name, value in each.items()}))
        assert len(again) == 100
        events += [fields_of(letter.entry)["event"] for letter in again]
    assert sorted(events) == sorted([*numbers, *broken])


def test_control_characters_do_not_grow_sixfold() -> None:
    """Use base64 for control characters. Otherwise a letter of 200 MB would exceed a gigabyte."""
    fields = {b"event": b"\x01" * 100_000}
    (letter,) = letters(read(fields))
    assert len(letter.entry) < 150_000
    assert {name.encode(): value for name, value in fields_of(letter.entry).items()} == fields


def test_errors_have_a_limit() -> None:
    """Truncate errors. Otherwise a field's name could fill the log."""
    name = "n" * 100_000
    by_utf8, by_name, unknown = letters(
        read(
            {b"type": b"response.refusal.delta", name.encode(): b"\xff"},
            {name.encode(): b"x", b"\x1b" * 50: b"x"},
            {f"{name}{number}".encode(): b"x" for number in range(20)},
        )
    )
    assert max(len(each.error) for each in (by_utf8, by_name, unknown)) <= ERROR_LENGTH
    assert by_name.error.endswith("as the field event (JSON), as __data__, or as flat fields with a type")


# --------------------------------------------------------------------------------------- sizes before parsing


def peak_of(fields: Mapping[bytes, bytes]) -> tuple[int, Batch]:
    """Return the peak of allocated bytes while an entry is read, and its batch."""
    tracemalloc.start()
    try:
        batch = read(fields)
        return tracemalloc.get_traced_memory()[1], batch
    finally:
        tracemalloc.stop()


LARGE = MAX_ENTRY_SIZE_FACTOR * MAX_EVENT


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (array(*[b"[]"] * (5 * LARGE // 3)), "the entry has"),
        (array(*[b"[]"] * (LARGE // 3 - 20)), "the entry's array has more than 10000 events"),
        (b"[" + b"[]," * (LARGE // 3 - 20), "the entry's array has more than 10000 events"),
        (array(array(*[b"[]"] * (LARGE // 3 - 20))), "the event has"),
        (b'{"type":"x","a":' + array(*[b"[]"] * (LARGE // 3 - 20)) + b"}", "the event has"),
    ],
    ids=["entry", "array", "no end", "nested", "event"],
)
def test_oversized_entries_are_not_parsed(body: bytes, error: str) -> None:
    """Check sizes before parsing. Otherwise 45 MB of brackets would take 1.4 GB of memory."""
    fields = {b"event": body}
    peak, batch = peak_of(fields)
    (letter,) = letters(batch)
    assert letter.reason == "oversized"
    assert letter.error.startswith(error)
    assert peak < 6 * len(body) + 8_000_000  # plus the memory to find 10,000 elements


@pytest.mark.parametrize(
    "body",
    [b"[" + b"{" * (LARGE - 20), b"[" + array(*[b"[[]]"] * (LARGE // 5 - 20), b"no") + b"]"],
    ids=["deep", "broken inside"],
)
def test_structure_that_no_parser_takes_has_a_limit(body: bytes) -> None:
    """Limit brackets and commas. Otherwise a worker would scan invalid structure for seconds."""
    (letter,) = letters(read({b"event": body}))
    assert letter.reason == "oversized"
    assert "brackets and commas" in letter.error


def test_events_of_an_array_are_parsed_one_by_one() -> None:
    """Parse the events of an array one by one. Otherwise all of them would be in memory together."""
    event = b'{"type":"x","a":' + array(*[b"[]"] * (MAX_EVENT // 3 - 20)) + b"}"
    one, _ = peak_of({b"event": array(event)})
    seven, batch = peak_of({b"event": array(*[event] * 7)})
    assert seven < one + 4 * 7 * len(event)
    assert len(batch.commit.counts["type:x"]) == 7


# ------------------------------------------------------------------------------------------------ linear time

DELTA = b'{"type":"response.refusal.delta","delta":"x","output_index":0,"content_index":0'
COMPLETED = b'{"type":"response.completed","response":{"output":['
MESSAGE = COMPLETED + b'{"type":"message","id":"m","content":['
DONE = b'{"type":"response.refusal.done","refusal":"%d","output_index":0,"content_index":0}'
FAILED = b'{"type":"response.failed","response":{"error":{"code":"%d","message":"%d"}}}'
CREATED = b'{"type":"response.created","response":{"model":"%d"}}'
SHAPES = {
    "digits": (DELTA + b',"sequence_number":', b"9", b"}"),
    "integers": (DELTA + b',"x":[', b"9" * 4000 + b",", b"1]}"),
    "infinities": (DELTA + b',"x":[', b"1e400,", b"1]}"),
    "keys": (DELTA + b',"sequence_number":"x"', b',"a":1', b"}"),
    "known keys": (DELTA + b',"sequence_number":"x"', b',"delta":"y"', b"}"),
    "large key": (DELTA + b',"sequence_number":"x","', b"k", b'":1}'),
    "halves": (DELTA + b',"x":"', rb"\ud83d", b'"}'),
    "deep": (DELTA + b',"x":', b"[", b"}"),
    "brackets": (DELTA + b',"sequence_number":"x","x":[', b"[],", b"1]}"),
    "odd items": (COMPLETED, b"1,", b"1]}}"),
    "odd objects": (COMPLETED, b'{"type":1},', b"1]}}"),
    "odd parts": (MESSAGE, b"1,", b"1]}]}}"),
    "copies": (MESSAGE, b'{"type":"refusal","refusal":"x"},', b"1]}]}}"),
    "type": (b'{"type":"', b"t", b'"}'),
    "control characters": (DELTA + b',"x":"', b"\x01", b'"}'),
}
UNKNOWN = b'{"type":"%d"}'
ARRAYS = {"closings": DONE, "endings": FAILED, "models": CREATED, "without ids": WITHOUT_ID, "types": UNKNOWN}


def cost(fields: Mapping[bytes, bytes]) -> float:
    """Return the minimum CPU time of three reads of an entry, in seconds, without garbage collection."""
    best = math.inf
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            began = time.process_time()
            read(fields)
            best = min(best, time.process_time() - began)
    finally:
        gc.enable()
    return best


def grows_linearly(bodies: list[bytes]) -> bool:
    """Return whether the larger of two bodies (four times the size) costs less than eight times as much."""
    small, large = (cost({b"event": body, b"response_id": b"resp_1"}) for body in bodies)
    return large < 8 * small + 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_an_event_of_any_shape_costs_linear_time(shape: str) -> None:
    """Read any event in linear time. Otherwise one megabyte could block a worker for minutes."""
    before, unit, behind = SHAPES[shape]
    times = (MAX_EVENT - len(before) - len(behind)) // len(unit)
    assert grows_linearly([before + unit * number + behind for number in (times // 4, times)])


@pytest.mark.parametrize("shape", ARRAYS)
def test_an_array_of_any_shape_costs_linear_time(shape: str) -> None:
    """Read any array in linear time. Otherwise 800 kB of closings would block a worker for ten seconds."""
    event = ARRAYS[shape]
    bodies = [
        array(*(event.replace(b"%d", b"%d" % n) for n in range(number)), b"1") for number in (1500, 6000)
    ]
    assert grows_linearly(bodies)


def test_a_list_of_too_many_items_is_left_out() -> None:
    """Leave out a list with too many items. Otherwise half a million odd items would take nine seconds."""
    for number, left_out in ((limits.ITEMS, False), (limits.ITEMS + 1, True)):
        batch = read({b"event": COMPLETED + b",".join([b"{}"] * number) + b"]}}", b"response_id": b"r"})
        assert letters(batch) == []
        assert ("left_out:response.completed:response.output" in batch.commit.counts) is left_out


closings = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(Rank), st.sampled_from(["", "a", "b"]), st.booleans()),
    max_size=8,
)


@given(closings)
def test_closings_that_are_kept_are_those_of_the_rule(given: list[tuple[int, Rank, str, bool]]) -> None:
    """Keep exactly the closings that can matter.

    Otherwise texts would be stored twice, or contradictions lost.
    """
    change, kept, copies = PartChange(), list[StoredClosing](), list[Arrival]()
    for position, (entry, rank, text, has_checksum) in enumerate(given):
        closing = StoredClosing(Arrival(EntryId(entry, 0), position), rank, text)
        known = any(
            each.text and (each.arrival, each.rank) <= (closing.arrival, rank)
            for each in kept
            if text in ("", each.text)
        )
        if known and not has_checksum:
            copies.append(closing.arrival)
        else:
            kept.append(closing)
        change.close(closing, has_checksum=has_checksum)
    assert (change.closings, change.copies) == (kept, copies)
