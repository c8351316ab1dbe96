"""Test how events are read from files and pipes, and packed into entries."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.event_source import (
    LOOK_AHEAD,
    EventReader,
    Look,
    PackedEntry,
    Packer,
    TooLargeError,
    look_at,
)


def read(data: bytes, size: int | None = None) -> list[bytes]:
    """Return the events in `data`, which is fed in pieces of `size` bytes, or whole by default."""
    reader = EventReader()
    step = size or max(1, len(data))
    events = [event for at in range(0, len(data), step) for event in reader.feed(data[at : at + step])]
    return [*events, *reader.close()]


def packed(events: list[bytes], response_id: str | None = None, coalesce: int = 1) -> list[PackedEntry]:
    """Return the entries of these events."""
    packer = Packer(response_id, coalesce)
    return [*(entry for event in events for entry in packer.add(event, look_at(event))), *packer.close()]


def event(name: str, **more: object) -> bytes:
    """Return an event's JSON."""
    return json.dumps({"type": name, **more}, separators=(",", ":")).encode()


def created(response_id: object) -> bytes:
    """Return the JSON of an event that begins a response."""
    return event("response.created", response={"id": response_id})


SSE = b""": a comment
event: response.created
data: {"type":"response.created"}

event: two.lines
data: {"type":
data:  "two.lines"}
id: 7
retry: 10

data

data: [DONE]

"""


def test_server_sent_events_as_the_api_sends_them() -> None:
    """Read a recorded HTTP body with comments, ids, multi-line data and `[DONE]`."""
    assert read(SSE) == [b'{"type":"response.created"}', b'{"type":\n "two.lines"}']


A, B = b'{"type":"a"}', b'{"type":"b"}'


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"event: x\rdata: " + A + b"\r\rdata: " + B + b"\r\r", [A, B]),
        (b"type: a\ndata: " + A + b"\n\n", [A]),
        (b"data\ndata: " + A + b"\n\n", [A]),
        (b" data: " + A + b"\n\n data: " + B, [A, B]),
        (b"data:\n" + A + b"\n\ndata:\n " + B + b"\n", [A, B]),
        (b"data: " + A + b"\ndata: " + B + b"\n", [A, B]),
        (b"data: " + A[:7] + b"\ndata: " + B + b"\n\n", [A[:7], B]),
        (b"data: " + A[:8] + b"\ndata: " + A[8:] + b"\n\n", [A[:8] + b"\n" + A[8:]]),
        (b'event: a\ndata: {"n":1}\n\nevent: b\ndata: {}\n\n', [b'{"type":"a","n":1}', b'{"type":"b"}']),
        (b'event: error\ndata: {"error":"no"}\n\n', [b'{"type":"error","error":"no"}']),
        (b'event: a\ndata: {"item":{"type":"a"}}\n\n', [b'{"item":{"type":"a"}}']),
        (b"event: x\ndata: " + A + b"\n\nevent: message\ndata: {}\n\n", [A, b"{}"]),
        (b"event: x\ndata: [1]\n\nevent: x\ndata: {no\n\n", [b"[1]", b"{no"]),
        (b"\xef\xbb\xbfdata: " + A, [A]),
    ],
    ids=[
        "carriage returns",
        "an unknown field first",
        "bare data",
        "indented",
        "data on the next line",
        "no empty lines",
        "cut off",
        "over two lines",
        "type in the event line",
        "error in the event line",
        "a type inside only",
        "a type of its own",
        "not an object",
        "byte order mark",
    ],
)
def test_variants_of_server_sent_events(data: bytes, events: list[bytes]) -> None:
    """Read the variants of server-sent events that servers send in practice."""
    assert read(data) == events


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_with_its_mark(encoding: str) -> None:
    """Read UTF-16 with a byte order mark, as a Windows shell writes it."""
    lines = '{"type":"a","delta":"\U0001f600"}\r\n{"type":"b"}'
    data = ("\ufeff" + lines).encode(encoding)
    assert read(data) == [line.encode() for line in lines.split("\r\n")] == read(data, 3)


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"[\n  " + A + b",\n  " + B + b"\n]\n", [b"[\n  " + A + b",\n  " + B + b"\n]"]),
        (b'{\n "type": "a"\n}\n\n{\n "type": "b"\n}', [b'{\n "type": "a"\n}', b'{\n "type": "b"\n}']),
        (b'{\n"a":{\n}\n}\n' + A, [b'{\n"a":{\n}\n}', A]),
        (b"{\n" + b"}\n" * 100, [b"{\n}", (b"}\n" * 99).strip()]),
        (b"{\n", [b"{"]),
    ],
    ids=["an array", "two objects", "not indented", "broken", "cut off"],
)
def test_json_over_several_lines(data: bytes, events: list[bytes]) -> None:
    """Join JSON that spans lines. Otherwise an exported document would be a dead letter per line."""
    assert read(data) == events == read(data, 1)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_json_lines(ending: bytes) -> None:
    """Skip empty lines and a byte order mark, and accept any line ending."""
    data = b"\xef\xbb\xbf" + ending.join(
        [b'{"type":"a"}', b"", b' {"type":"b"} ', b"[DONE]", b'{"type":"c"}']
    )
    assert read(data) == [b'{"type":"a"}', b'{"type":"b"}', b'{"type":"c"}']


def test_events_stay_as_they_were_written() -> None:
    """Leave events unchanged, since only the worker may repair or reject them."""
    lines = [b'{"type":"a","delta":"\\ud83d"}', b'{"type":"a","delta":"\xff"', b"{  'no' }", b"[1, 2]"]
    assert read(b"\n".join(lines)) == lines


def test_a_stream_that_was_cut_off_keeps_its_last_event() -> None:
    """Return the last event of a connection that was cut."""
    assert read(b'data: {"type":"a"}\n\ndata: {"type":"b"}') == [b'{"type":"a"}', b'{"type":"b"}']


@given(
    lines=st.lists(
        st.binary(max_size=20) | st.sampled_from([A, B, b"{", b"}", b"data:", b"\xff\xfe"]), max_size=8
    ),
    form=st.sampled_from([b"%s\n", b"data: %s\n\n", b"event: c\r\ndata: %s\r\n\r\n", b"%s\r"]),
    size=st.integers(1, 50),
)
def test_pieces_do_not_matter(lines: list[bytes], form: bytes, size: int) -> None:
    """Return the same events for any size of the pieces, since a pipe returns arbitrary ones."""
    data = b"".join(form % line for line in lines)
    assert read(data, size) == read(data)


@pytest.mark.parametrize(
    ("raw", "look"),
    [
        (created("resp_1"), Look("resp_1", is_object=True, mentions="resp_1")),
        (created(7), Look(is_object=True)),
        (event("response.created", response=None), Look(is_object=True)),
        (event("response.completed", response={"id": "resp_1"}), Look(is_object=True, mentions="resp_1")),
        (event("a", stream_id="s", response={"id": ""}), Look(is_object=True, stream_id="s")),
        (event("a", stream_id=7, response={"id": 7}), Look(is_object=True)),
        (b'{"type":"a","delta":"\\ud83d"}', Look(is_object=True)),
        (b'{"error":{"code":"x"}}', Look(is_object=True)),
        (b'[{"error":"boom"}]', Look()),
        (b'{"no":"type"}', Look(is_object=True, broken=True)),
        (b'[{"type":"a"}]', Look()),
        (b'[{"type":"a"},7]', Look(broken=True)),
        (b"7", Look(broken=True)),
        (b'{"type":', Look(broken=True)),
        (b"\xff", Look(broken=True)),
        (b"[" * 100_000, Look(broken=True)),
    ],
)
def test_look(raw: bytes, look: Look) -> None:
    """Find the response id of an event, and whether it looks broken."""
    assert look_at(raw) == look


def test_the_streams_own_id_is_taken() -> None:
    """Assign the events before `response.created` to its response."""
    first = event("keepalive")
    assert packed([first, created("resp_1"), event("a")]) == [
        PackedEntry("resp_1", first, 1),
        PackedEntry("resp_1", created("resp_1"), 1),
        PackedEntry("resp_1", event("a"), 1),
    ]


def test_responses_on_one_connection_stay_apart() -> None:
    """Separate the responses of a WebSocket recording by their `stream_id`."""
    events = [
        event("response.created", stream_id="a", response={"id": "resp_a"}),
        event("response.created", stream_id="b", response={"id": "resp_b"}),
        event("x", stream_id="a"),
        event("x", stream_id="b"),
        event("x"),
        event("x", stream_id="new"),
    ]
    ids = [entry.response_id for entry in packed(events)]
    assert ids == ["resp_a", "resp_b", "resp_a", "resp_b", "resp_b", "resp_b"]
    assert [
        (each.response_id, each.events) for each in packed([*events[:2], *events[2:3] * 4], coalesce=2)
    ] == [
        ("resp_a", 1),
        ("resp_b", 1),
        ("resp_a", 2),
        ("resp_a", 2),
    ]


def test_a_stream_that_is_resumed_has_the_id_of_its_end() -> None:
    """Use the id of the last event for a resumed stream.

    Otherwise its second half would be a new response.
    """
    events = [event("a"), event("response.completed", response={"id": "resp_1"})]
    assert {entry.response_id for entry in packed(events)} == {"resp_1"}
    later = [created("resp_1"), event("response.completed", response={"id": "resp_other"})]
    assert {entry.response_id for entry in packed(later)} == {"resp_1"}


def test_a_given_id_wins() -> None:
    """Prefer the given id, so that a recording can be published again as another response."""
    assert {entry.response_id for entry in packed([created("resp_1"), created("resp_2")], "mine")} == {"mine"}


@pytest.mark.parametrize("number", [1, LOOK_AHEAD, LOOK_AHEAD + 5])
def test_a_stream_without_an_id_gets_a_fresh_one(number: int) -> None:
    """Make a new id for a stream without one, after a bounded look ahead."""
    first, second = (packed([event("a")] * number) for _ in range(2))
    assert len(first) == number
    (one,), (other,) = {entry.response_id for entry in first}, {entry.response_id for entry in second}
    assert one.startswith("resp_")
    assert one != other


def test_the_next_response_of_a_file_is_another_one() -> None:
    """Start a new entry at the next `response.created`. Otherwise two responses of a file would be mixed."""
    entries = packed([created("resp_1"), event("a"), created("resp_2"), event("b")], coalesce=10)
    assert [(entry.response_id, entry.events) for entry in entries] == [("resp_1", 2), ("resp_2", 2)]


def test_coalescing_joins_the_raw_events() -> None:
    """Join raw bytes into an array. Otherwise the events could differ from what the API sent."""
    events = [event("a", delta="\U0001f600"), event("b"), event("c")]
    first, second = packed(events, "r", coalesce=2)
    assert first == PackedEntry("r", b"[" + events[0] + b"," + events[1] + b"]", 2)
    assert second == PackedEntry("r", events[2], 1)


@pytest.mark.parametrize("odd", [b"{", b'[{"type":"a"}]', b"7"])
def test_a_broken_line_is_sent_alone(odd: bytes) -> None:
    """Send a broken line on its own. Otherwise its neighbours in the array could become dead letters."""
    entries = packed([event("a"), event("b"), odd, event("c"), event("d")], "r", coalesce=3)
    assert [entry.events for entry in entries] == [2, 1, 2]
    assert entries[1].body == odd


@given(st.lists(st.sampled_from([event("a"), event("b"), b"{", b"[]", created("x")])), st.integers(1, 5))
def test_nothing_is_lost_or_moved(events: list[bytes], coalesce: int) -> None:
    """Keep all events, once and in order."""
    entries = packed(events, "r", coalesce)
    assert sum(entry.events for entry in entries) == len(events)
    written = [entry.body if entry.events == 1 else entry.body[1:-1] for entry in entries]
    assert b",".join(written) == b",".join(events)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"x" * 5000, "line 2 has"),
        (b"[" + b"1," * 5000, "line 2 has"),
        (b"data: " + b"x" * 5000, "line 2 has"),
        (b"\xff\xfe" + b"x\0" * 5000, "line 2 has"),
    ],
)
@pytest.mark.parametrize("step", [7, 500, 100_000])
def test_a_line_without_an_end_is_not_held(data: bytes, error: str, step: int) -> None:
    """Refuse a line above the limit. Otherwise a file without line ends would be held in memory."""
    fed, given = 0, A + b"\n" + data
    reader, events = EventReader(1000), list[bytes]()

    def feed_all() -> None:
        nonlocal fed, events
        while True:
            events += reader.feed(given[fed : fed + step])
            fed += step

    with pytest.raises(TooLargeError, match=f"^{error} more than 1000 bytes$"):
        feed_all()
    assert events == [A]
    assert fed <= max(step, 2100 + step)
    with pytest.raises(TooLargeError):
        reader.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"[\n" + b"1,\n" * 1000, "the event that begins in line 1"),
        (b"data: x\n\n" + b"data: x\n" * 1000, "the event that begins in line 3"),
        (b"{\n}\n{\n" + b'"a":\n' * 1000, "the event that begins in line 3"),
    ],
)
def test_an_event_over_several_lines_is_not_held(data: bytes, error: str) -> None:
    """Refuse an event above the limit. Otherwise a document without an end would be held in memory."""
    reader = EventReader(1000)
    events = reader.feed(data)
    assert len(events) == ("line 3" in error)
    with pytest.raises(TooLargeError, match=f"^{error} has more than 1000 bytes$"):
        reader.feed(b"")


def test_an_array_is_cut_where_it_would_be_too_large() -> None:
    """Cut an array at the size limit. Otherwise its valid events would become one dead letter."""
    packer = Packer("resp_1", 100, most_bytes=3 * len(A) + 4)
    entries = [*(entry for _ in range(7) for entry in packer.add(A, look_at(A))), *packer.close()]
    assert [entry.events for entry in entries] == [3, 3, 1]
    assert [len(entry.body) for entry in entries] == [3 * len(A) + 4, 3 * len(A) + 4, len(A)]
