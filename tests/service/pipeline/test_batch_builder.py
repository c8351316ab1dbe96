"""Test that a batch gathered in any number of steps keeps all entries and gives the same commit."""

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
from service.pipeline.batch_builder import LARGE_ENTRY_BYTES, NO_OWNER, BatchBuilder, slices
from service.pipeline.bodies import Bodies
from service.pipeline.decode import Unreadable
from service.pipeline.decoded_batch import DecodedBatch
from service.pipeline.event_router import EventRouter
from service.ports.storage import RawEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.ports.commit import Commit

_UNREADABLE = Unreadable("oversized", "too large")
ROUTER = EventRouter(
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


def decoded(entries: Sequence[RawEntry], cuts: Sequence[int] = ()) -> DecodedBatch:
    """Return the batch of these entries, added in steps that end at `cuts`."""
    result = DecodedBatch(ROUTER.rules)
    ends = sorted({*cuts, len(entries)})
    for first, end in zip([0, *ends], ends, strict=False):
        result.add(entries[first:end])
    return result


def content_of(commit: Commit) -> Any:
    """Return the whole content of a commit."""
    responses = {
        key: (
            {
                part: (commit.fragments(change), change.closings, change.item_id, change.ids_differ)
                for part, change in response.parts.items()
            },
            response.endings,
            response.notes,
            response.context_claims,
            response.effect_entries,
        )
        for key, response in commit.responses.items()
    }
    return commit.entries, responses, commit.counts, commit.touched, commit.dead_letters


@given(batches, st.lists(st.integers(0, 12), max_size=3))
def test_entries_come_out_as_they_went_in(entries: list[RawEntry], cuts: list[int]) -> None:
    """Keep entries byte for byte on either path, since dead letters quote them."""
    result = decoded(entries, [cut for cut in cuts if cut < len(entries)])
    assert result.raws() == entries
    assert result.ids == [entry.id for entry in entries]


@given(batches, st.lists(st.integers(0, 12), max_size=3))
def test_the_number_of_steps_makes_no_difference(entries: list[RawEntry], cuts: list[int]) -> None:
    """Give the same commit whether entries are added together or in steps."""
    at_once = Batch(decoded(entries), ROUTER, now_ms=1)
    in_steps = Batch(decoded(entries, [cut for cut in cuts if cut < len(entries)]), ROUTER, now_ms=1)
    assert content_of(in_steps.commit) == content_of(at_once.commit)


@given(batches)
def test_it_can_be_read_again(entries: list[RawEntry]) -> None:
    """Leave the decoded batch unchanged, since each attempt to commit starts from it again."""
    result = decoded(entries)
    first = Batch(result, ROUTER, now_ms=1)
    for key in list(first.commit.responses):
        for part in list(first.commit.responses[key].parts):
            first.reject_parts({part: _UNREADABLE})
    assert content_of(Batch(result, ROUTER, now_ms=1).commit) == content_of(
        Batch(decoded(entries), ROUTER, now_ms=1).commit
    )
    assert result.raws() == entries


def test_a_part_of_two_columns_can_be_read_again() -> None:
    """Leave columns unchanged when they are joined. Otherwise a second attempt would add entries twice."""
    tenants = (b"one", b"two", b"one")
    result = decoded([entry(n, b"response_id", b"r", b"tenant", who) for n, who in enumerate(tenants)])
    assert len(result.columns) == 2
    for _ in range(2):
        ((response,),) = [[*Batch(result, ROUTER, now_ms=1).commit.responses.values()]]
        ((part,),) = [[*response.parts.values()]]
        assert part.entries == [0, 1, 2]


def test_nul_bytes_do_not_mix_entries() -> None:
    """Keep entries with NUL bytes apart. Otherwise a dead letter would quote the wrong entry."""
    entries = [entry(0, b"a\0b", b"c"), entry(1, b"a", b"b\0c")]
    assert decoded(entries).raws() == entries


def entry(number: int, *metadata: bytes) -> RawEntry:
    """Return an entry with one delta and these metadata fields."""
    return RawEntry(b"1-%d" % number, [b"event", json.dumps(_DELTA).encode(), *metadata])


@given(batches, st.integers(1, 400))
def test_too_much_for_one_batch_goes_into_several(entries: list[RawEntry], max_bytes: int) -> None:
    """Split entries into batches within a byte limit.

    Otherwise one commit could exceed the server's limit.
    """
    builder = BatchBuilder(ROUTER.rules, max_bytes)
    for entry in entries:
        builder.extend([entry])
    assert [entry for batch in builder.batches for entry in batch.raws()] == entries
    assert builder.ids == [entry.id for entry in entries]
    assert all(batch.size <= max_bytes or len(batch) == 1 for batch in builder.batches)
    assert len(builder.batches) <= 2 * len(list(slices(entries, max_bytes)))


def large(number: int, *metadata: bytes) -> RawEntry:
    """Return an entry large enough to be processed separately."""
    body = json.dumps({**_DELTA, "x": "x" * LARGE_ENTRY_BYTES}).encode()
    return RawEntry(b"1-%d" % number, [b"event", body, *metadata])


def test_large_entries_are_taken_last() -> None:
    """Put large entries into a later batch. Otherwise the other entries of their read would wait for them."""
    builder = BatchBuilder(ROUTER.rules, 10**6)
    builder.extend([entry(0), large(1, b"response_id", b"r"), entry(2)])
    builder.extend([large(3, b"response_id", b"s"), entry(4)])
    assert builder.ids == [b"1-0", b"1-1", b"1-2", b"1-3", b"1-4"]
    assert [batch.ids for batch in builder.batches] == [[b"1-0", b"1-2", b"1-4"], [b"1-1", b"1-3"]]
    assert len(builder) == 5
    assert builder.size == sum(batch.size for batch in builder.batches)


@pytest.mark.parametrize("names", [[b"response_id", b"event"], [b"response_id", b"type", b"text"]])
def test_a_large_entry_may_have_its_fields_in_any_order(names: list[bytes]) -> None:
    """Recognize the owner of a large entry in any field order, and for flat fields."""
    values = {b"response_id": b"r", b"type": b"x", names[-1]: b"x" * LARGE_ENTRY_BYTES}
    fields = [each for name in names for each in (name, values[name])]
    builder = BatchBuilder(ROUTER.rules, 10**6)
    builder.extend([entry(0), RawEntry(b"1-1", fields), entry(2)])
    assert [batch.ids for batch in builder.batches] == [[b"1-0", b"1-2"], [b"1-1"]]
    assert builder.owners == {b"1-1": StreamKey("response", "r")}


def test_entries_of_a_response_keep_their_order() -> None:
    """Keep entries of one response in order behind its large entry.

    Otherwise a late delta would raise an alert.
    """
    builder = BatchBuilder(ROUTER.rules, 10**6)
    own, other = (b"response_id", b"r"), (b"response_id", b"s")
    builder.extend([entry(0, *own), large(1, *own), entry(2, *other), entry(3, *own), entry(4)])
    builder.extend([entry(5, *own), large(6), entry(7), entry(8, *other)])
    light, *behind = builder.batches
    assert light.ids == [b"1-0", b"1-2", b"1-4", b"1-8"]
    # Entries without an owner come first, since they hold back all responses.
    unowned, owned = [b"1-6", b"1-7"], [b"1-1", b"1-3", b"1-5"]
    assert [each for batch in behind for each in batch.ids] == unowned + owned
    assert (light.has_large, *(batch.has_large for batch in behind)) == (False, *(True for _ in behind))
    assert builder.owners.keys() == {*owned}
    assert (len(builder), builder.has_large) == (9, True)


def test_nothing_waits_for_an_oversized_entry() -> None:
    """Put entries beyond the size limit last. Otherwise 45 MB of dead letter would delay its neighbours."""
    builder = BatchBuilder(ROUTER.rules._replace(max_event_bytes=LARGE_ENTRY_BYTES), 10**6)
    builder.extend([large(0, b"x", b"x" * 8 * LARGE_ENTRY_BYTES), entry(1), large(2), entry(3)])
    assert [batch.ids for batch in builder.batches] == [[b"1-1"], [b"1-2", b"1-3"], [b"1-0"]]
    assert builder.owners == {b"1-0": NO_OWNER}
    assert builder.ids == [b"1-0", b"1-1", b"1-2", b"1-3"]


@pytest.mark.parametrize(
    ("metadata", "owner"),
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
        ((b"x", b"x" * 40_000), NO_OWNER),
    ],
)
def test_the_owner_of_a_large_entry(metadata: tuple[bytes, ...], owner: StreamKey | None) -> None:
    """Take the owner from an unambiguous, valid response_id.

    Otherwise a text could come out too early or late.
    """
    rules = ROUTER.rules._replace(max_event_bytes=LARGE_ENTRY_BYTES // 4)
    builder = BatchBuilder(rules, 10**6)
    builder.extend([large(1, *metadata)])
    assert builder.owners.get(b"1-1") == owner


def test_a_dead_lettered_entry_is_not_decoded() -> None:
    """Decode nothing of an entry that becomes a dead letter, since decoding it has killed its readers."""
    entries = [RawEntry(b"1-0", [b"event", b"{}"]), RawEntry(b"1-1", [b"event", json.dumps(_DELTA).encode()])]
    result = DecodedBatch.unread(ROUTER.rules, entries)
    assert not result.columns
    assert not result.needs_handler
    assert result.slow_path == [0, 1]
    assert result.raws() == entries


@pytest.mark.parametrize("size", [0, 1, 3])
def test_bodies(size: int) -> None:
    """Return each body by its index, across chunks."""
    all_of_them = [b"%d" % n * (n % 4) for n in range(3 * size)]
    bodies = Bodies()
    for first in range(0, len(all_of_them), size or 1):
        bodies.extend(all_of_them[first : first + size])
    assert [bodies[n] for n in range(len(all_of_them))] == all_of_them
    assert bodies.size == len(b"".join(all_of_them))
