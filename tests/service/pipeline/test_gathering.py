"""Entries, gathered as they are read: nothing of them is lost, and in how many steps makes no difference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom import limits
from handlers import BUILT_IN
from handlers.core.identity import StreamKey
from handlers.core.routing import RoutingTable
from service.bus.envelope import open_entry
from service.pipeline.batch import Batch
from service.pipeline.bodies import Bodies
from service.pipeline.decode import Unreadable
from service.pipeline.gathering import DEAR_BYTES, NOBODY, Gathered, Gathering, slices
from service.pipeline.sources import Reading
from service.ports.storage import RawEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.ports.commit import Commit

_UNREADABLE = Unreadable("oversized", "too large")
READING = Reading(
    RoutingTable(BUILT_IN.values()),
    open_entry,
    stream="s",
    max_event_bytes=5000,
    max_array_length=5,
    max_response_parts=512,
)

_DELTA = {
    "type": "response.refusal.delta",
    "item_id": "msg_1",
    "output_index": 0,
    "content_index": 0,
    "sequence_number": 1,
    "delta": "I",
}
events = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            [
                "response.refusal.delta",
                "response.reasoning_text.delta",
                "response.refusal.done",
                "deltaloom.part.redacted",
                "deltaloom.producer.loss",
                "response.cancelled",
                "keepalive",
            ]
        ),
        "item_id": st.sampled_from(["msg_1", "msg_2", None, "m" * (limits.ID + 1)]),
        "output_index": st.integers(0, 1),
        "content_index": st.just(1),
        "sequence_number": st.integers(0, 9),
        "delta": st.sampled_from(["I", " can", "", None]),
        "refusal": st.sampled_from(["I can", "I", None]),
        "text_sha256": st.just("0a" * 32),
        "kind": st.sampled_from(["refusal", "reasoning"]),
    },
).map(lambda some: _DELTA | some)
bodies = st.one_of(
    events.map(json.dumps),
    st.lists(events, max_size=6).map(json.dumps),
    st.sampled_from(["[DONE]", "{", "1", '{"type": 1}']),
).map(str.encode)
names = st.sampled_from([b"response_id", b"tenant", b"event", b"a\0b", b"a", b""])
values = st.sampled_from([b"resp_1", b"resp_2", b"\0", b"b\0c", b"\xff", b"", b"t" * 257, b"r" * 1025])
fields = st.tuples(
    st.sampled_from([b"event", b"event", b"event", b"__data__", b"type"]),
    bodies,
    st.lists(st.tuples(names, values), max_size=3),
).map(lambda parts: [parts[0], parts[1], *(each for pair in parts[2] for each in pair)])
batches = st.lists(fields, min_size=1, max_size=12).map(
    lambda all_of_them: [RawEntry(b"1-%d" % n, each) for n, each in enumerate(all_of_them)]
)


def gathered(entries: Sequence[RawEntry], cuts: Sequence[int] = ()) -> Gathered:
    """Entries, in so many steps."""
    result = Gathered(READING.rules)
    ends = sorted({*cuts, len(entries)})
    for first, end in zip([0, *ends], ends, strict=False):
        result.add(entries[first:end])
    return result


def told(commit: Commit) -> Any:
    """Everything that a commit asks for."""
    responses = {
        key: (
            {
                part: (commit.fragments(change), change.closings, change.item_id, change.ids_differ)
                for part, change in response.parts.items()
            },
            response.endings,
            response.notes,
            response.said,
            response.entries,
        )
        for key, response in commit.responses.items()
    }
    return commit.entries, responses, commit.counts, commit.touched, commit.dead_letters


@given(batches, st.lists(st.integers(0, 12), max_size=3))
def test_entries_come_out_as_they_went_in(entries: list[RawEntry], cuts: list[int]) -> None:
    """A dead letter has its entry byte for byte, whatever way its event went."""
    result = gathered(entries, [cut for cut in cuts if cut < len(entries)])
    assert result.raws() == entries
    assert result.ids == [entry.id for entry in entries]


@given(batches, st.lists(st.integers(0, 12), max_size=3))
def test_in_how_many_steps_makes_no_difference(entries: list[RawEntry], cuts: list[int]) -> None:
    """The reader takes a few hundred at once, which is nobody's business."""
    at_once = Batch(gathered(entries), READING, now_ms=1)
    in_steps = Batch(gathered(entries, [cut for cut in cuts if cut < len(entries)]), READING, now_ms=1)
    assert told(in_steps.commit) == told(at_once.commit)


@given(batches)
def test_it_can_be_read_again(entries: list[RawEntry]) -> None:
    """Every attempt to commit makes its batch anew; it finds what the first one did."""
    result = gathered(entries)
    first = Batch(result, READING, now_ms=1)
    for key in list(first.commit.responses):
        for part in list(first.commit.responses[key].parts):
            first.take_out({part: _UNREADABLE})
    assert told(Batch(result, READING, now_ms=1).commit) == told(
        Batch(gathered(entries), READING, now_ms=1).commit
    )
    assert result.raws() == entries


def test_a_part_of_two_columns_can_be_read_again() -> None:
    """What a batch adds to a part of what it was given, it would add to what is given to the next attempt."""
    tenants = (b"one", b"two", b"one")
    result = gathered([entry(n, b"response_id", b"r", b"tenant", who) for n, who in enumerate(tenants)])
    assert len(result.columns) == 2
    for _ in range(2):
        ((response,),) = [[*Batch(result, READING, now_ms=1).commit.responses.values()]]
        ((part,),) = [[*response.parts.values()]]
        assert part.entries == [0, 1, 2]


def test_a_zero_byte_makes_no_two_entries_alike() -> None:
    """One of them would come back as the other, in a dead letter."""
    entries = [entry(0, b"a\0b", b"c"), entry(1, b"a", b"b\0c")]
    assert gathered(entries).raws() == entries


def entry(number: int, *beside: bytes) -> RawEntry:
    """One delta, with this beside it."""
    return RawEntry(b"1-%d" % number, [b"event", json.dumps(_DELTA).encode(), *beside])


@given(batches, st.integers(1, 400))
def test_too_much_for_one_batch_goes_into_several(entries: list[RawEntry], max_bytes: int) -> None:
    """A batch of large events would be one command too large for the server; a lost one would be worse."""
    gathering = Gathering(READING.rules, max_bytes)
    for entry in entries:
        gathering.extend([entry])
    assert [entry for batch in gathering.batches for entry in batch.raws()] == entries
    assert gathering.ids == [entry.id for entry in entries]
    assert all(batch.size <= max_bytes or len(batch) == 1 for batch in gathering.batches)
    assert len(gathering.batches) <= 2 * len(list(slices(entries, max_bytes)))


def large(number: int, *beside: bytes) -> RawEntry:
    """Return an entry that may take long."""
    body = json.dumps({**_DELTA, "x": "x" * DEAR_BYTES}).encode()
    return RawEntry(b"1-%d" % number, [b"event", body, *beside])


def test_large_entries_are_taken_last() -> None:
    """Otherwise the others of their read wait for them."""
    gathering = Gathering(READING.rules, 10**6)
    gathering.extend([entry(0), large(1, b"response_id", b"r"), entry(2)])
    gathering.extend([large(3, b"response_id", b"s"), entry(4)])
    assert gathering.ids == [b"1-0", b"1-1", b"1-2", b"1-3", b"1-4"]
    assert [batch.ids for batch in gathering.batches] == [[b"1-0", b"1-2", b"1-4"], [b"1-1", b"1-3"]]
    assert len(gathering) == 5
    assert gathering.size == sum(batch.size for batch in gathering.batches)


@pytest.mark.parametrize("names", [[b"response_id", b"event"], [b"response_id", b"type", b"text"]])
def test_a_large_entry_may_have_its_fields_in_any_order(names: list[bytes]) -> None:
    """Otherwise others wait for it, because its producer names the response first, or writes flat fields."""
    values = {b"response_id": b"r", b"type": b"x", names[-1]: b"x" * DEAR_BYTES}
    fields = [each for name in names for each in (name, values[name])]
    gathering = Gathering(READING.rules, 10**6)
    gathering.extend([entry(0), RawEntry(b"1-1", fields), entry(2)])
    assert [batch.ids for batch in gathering.batches] == [[b"1-0", b"1-2"], [b"1-1"]]
    assert gathering.owners == {b"1-1": StreamKey("response", "r")}


def test_entries_of_a_response_keep_their_order() -> None:
    """Otherwise a delta behind a large copy would be taken before it, and raise an alert."""
    gathering = Gathering(READING.rules, 10**6)
    own, other = (b"response_id", b"r"), (b"response_id", b"s")
    gathering.extend([entry(0, *own), large(1, *own), entry(2, *other), entry(3, *own), entry(4)])
    gathering.extend([entry(5, *own), large(6), entry(7), entry(8, *other)])
    light, *behind = gathering.batches
    assert light.ids == [b"1-0", b"1-2", b"1-4", b"1-8"]
    anybodys, own_ones = [b"1-6", b"1-7"], [b"1-1", b"1-3", b"1-5"]  # everybody waits for the former
    assert [each for batch in behind for each in batch.ids] == anybodys + own_ones
    assert (light.dear, *(batch.dear for batch in behind)) == (False, *(True for _ in behind))
    assert gathering.owners.keys() == {*own_ones}
    assert (len(gathering), gathering.has_dear) == (9, True)


def test_nothing_stays_behind_an_entry_that_is_not_looked_into() -> None:
    """Otherwise 45 MB that become a dead letter hold up all items that come with them."""
    gathering = Gathering(READING.rules._replace(max_event_bytes=DEAR_BYTES), 10**6)
    gathering.extend([large(0, b"x", b"x" * 8 * DEAR_BYTES), entry(1), large(2), entry(3)])
    assert [batch.ids for batch in gathering.batches] == [[b"1-1"], [b"1-2", b"1-3"], [b"1-0"]]
    assert gathering.owners == {b"1-0": NOBODY}
    assert gathering.ids == [b"1-0", b"1-1", b"1-2", b"1-3"]


@pytest.mark.parametrize(
    ("beside", "owner"),
    [
        ((b"response_id", b"r"), StreamKey("response", "r")),
        ((b"tenant", b"t", b"response_id", b"r"), StreamKey("response", "r")),
        ((), None),
        ((b"response_id", b""), None),
        ((b"response_id", b"a", b"response_id", b"b"), None),
        ((b"response_id", b"\xff"), None),
        ((b"response_id", b"a\n"), None),
        ((b"response_id", b"r" * 1025), None),
        ((b"tenant", b"response_id"), None),
        ((b"x", b"x" * 40_000, b"response_id", b"r"), StreamKey("response", "r")),
        ((b"x", b"x" * 40_000), NOBODY),
    ],
)
def test_the_owner_of_a_large_entry(beside: tuple[bytes, ...], owner: StreamKey | None) -> None:
    """Otherwise a text comes out while something of it is on its way, or waits for what is not its own."""
    rules = READING.rules._replace(max_event_bytes=DEAR_BYTES // 4)
    gathering = Gathering(rules, 10**6)
    gathering.extend([large(1, *beside)])
    assert gathering.owners.get(b"1-1") == owner


def test_what_is_left_is_not_looked_into() -> None:
    """What has killed its reader again and again is made a dead letter, and must not kill this one too."""
    entries = [RawEntry(b"1-0", [b"event", b"{}"]), RawEntry(b"1-1", [b"event", json.dumps(_DELTA).encode()])]
    result = Gathered.unread(READING.rules, entries)
    assert not result.columns
    assert not result.asked
    assert result.others == [0, 1]
    assert result.raws() == entries


@pytest.mark.parametrize("size", [0, 1, 3])
def test_bodies(size: int) -> None:
    """Each comes back, from the first of a chunk to the last of all."""
    all_of_them = [b"%d" % n * (n % 4) for n in range(3 * size)]
    bodies = Bodies()
    for first in range(0, len(all_of_them), size or 1):
        bodies.extend(all_of_them[first : first + size])
    assert [bodies[n] for n in range(len(all_of_them))] == all_of_them
    assert bodies.size == len(b"".join(all_of_them))
