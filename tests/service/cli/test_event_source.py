"""Events out of files and pipes, and into entries."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.event_source import LOOK_AHEAD, Entry, EventReader, Look, Packer, look_at


def read(data: bytes, size: int | None = None) -> list[bytes]:
    """All events of some bytes, fed in pieces of a size."""
    reader = EventReader()
    step = size or max(1, len(data))
    events = [event for at in range(0, len(data), step) for event in reader.feed(data[at : at + step])]
    return [*events, *reader.close()]


def packed(events: list[bytes], response_id: str | None = None, coalesce: int = 1) -> list[Entry]:
    """All entries of some events."""
    packer = Packer(response_id, coalesce)
    return [*(entry for event in events for entry in packer.add(event, look_at(event))), *packer.close()]


def event(name: str, **more: object) -> bytes:
    """An event's JSON."""
    return json.dumps({"type": name, **more}, separators=(",", ":")).encode()


def created(response_id: object) -> bytes:
    """What begins a response."""
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
    """A recorded HTTP body could not be published as it is."""
    assert read(SSE) == [b'{"type":"response.created"}', b'{"type":\n "two.lines"}']


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_json_lines(ending: bytes) -> None:
    """Empty lines, a byte order mark, either line ending or a missing last one would make dead letters."""
    data = b"\xef\xbb\xbf" + ending.join(
        [b'{"type":"a"}', b"", b' {"type":"b"} ', b"[DONE]", b'{"type":"c"}']
    )
    assert read(data) == [b'{"type":"a"}', b'{"type":"b"}', b'{"type":"c"}']


def test_events_stay_as_they_were_written() -> None:
    """What the worker has to judge would have been repaired, or lost, before it saw it."""
    lines = [b'{"type":"a","delta":"\\ud83d"}', b'{"type":"a","delta":"\xff"', b"{  'no' }", b"[1, 2]"]
    assert read(b"\n".join(lines)) == lines


def test_a_stream_that_was_cut_off_keeps_its_last_event() -> None:
    """The last event of a cut connection would vanish."""
    assert read(b'data: {"type":"a"}\n\ndata: {"type":"b"}') == [b'{"type":"a"}', b'{"type":"b"}']


@given(
    lines=st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=8),
    form=st.sampled_from([b"%s\n", b"data: %s\n\n"]),
    size=st.integers(1, 50),
)
def test_pieces_do_not_matter(lines: list[bytes], form: bytes, size: int) -> None:
    """A pipe gives what it has: an event would depend on how it was cut into reads."""
    data = b"".join(form % line for line in lines)
    assert read(data, size) == read(data)


@pytest.mark.parametrize(
    ("raw", "look"),
    [
        (created("resp_1"), Look("resp_1", is_object=True)),
        (created(7), Look(is_object=True)),
        (event("response.created", response=None), Look(is_object=True)),
        (event("response.completed", response={"id": "resp_1"}), Look(is_object=True)),
        (b'{"type":"a","delta":"\\ud83d"}', Look(is_object=True)),
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
    """The count of what looks broken, or the response id, would be wrong."""
    assert look_at(raw) == look


def test_the_streams_own_id_is_taken() -> None:
    """The events before `response.created` would belong to another response."""
    first = event("keepalive")
    assert packed([first, created("resp_1"), event("a")]) == [
        Entry("resp_1", first, 1),
        Entry("resp_1", created("resp_1"), 1),
        Entry("resp_1", event("a"), 1),
    ]


def test_a_given_id_wins() -> None:
    """A recording could not be published a second time as another response."""
    assert {entry.response_id for entry in packed([created("resp_1"), created("resp_2")], "mine")} == {"mine"}


@pytest.mark.parametrize("number", [1, LOOK_AHEAD, LOOK_AHEAD + 5])
def test_a_stream_without_an_id_gets_a_fresh_one(number: int) -> None:
    """A stream without `response.created` could not be published, or two would be mixed up."""
    first, second = (packed([event("a")] * number) for _ in range(2))
    assert len(first) == number
    (one,), (other,) = {entry.response_id for entry in first}, {entry.response_id for entry in second}
    assert one.startswith("resp_")
    assert one != other


def test_the_next_response_of_a_file_is_another_one() -> None:
    """Two responses in one file would be mixed into one."""
    entries = packed([created("resp_1"), event("a"), created("resp_2"), event("b")], coalesce=10)
    assert [(entry.response_id, entry.events) for entry in entries] == [("resp_1", 2), ("resp_2", 2)]


def test_coalescing_joins_the_raw_events() -> None:
    """Coalesced events would be written anew, and could differ from what the API sent."""
    events = [event("a", delta="\U0001f600"), event("b"), event("c")]
    first, second = packed(events, "r", coalesce=2)
    assert first == Entry("r", b"[" + events[0] + b"," + events[1] + b"]", 2)
    assert second == Entry("r", events[2], 1)


@pytest.mark.parametrize("odd", [b"{", b'[{"type":"a"}]', b"7"])
def test_what_is_no_object_goes_alone(odd: bytes) -> None:
    """One broken line would make dead letters of its neighbours in the array."""
    entries = packed([event("a"), event("b"), odd, event("c"), event("d")], "r", coalesce=3)
    assert [entry.events for entry in entries] == [2, 1, 2]
    assert entries[1].body == odd


@given(st.lists(st.sampled_from([event("a"), event("b"), b"{", b"[]", created("x")])), st.integers(1, 5))
def test_nothing_is_lost_or_moved(events: list[bytes], coalesce: int) -> None:
    """An event would vanish, double or change places on its way to the input."""
    entries = packed(events, "r", coalesce)
    assert sum(entry.events for entry in entries) == len(events)
    written = [entry.body if entry.events == 1 else entry.body[1:-1] for entry in entries]
    assert b",".join(written) == b",".join(events)
