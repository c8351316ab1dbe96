"""Test the plan that commit.lua executes, and which data it omits because storage has it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from deltaloom import DeadLetter, ModerationAlert, StreamNames
from handlers.core.assembly import StoredClosing
from handlers.core.effects import ContextValues, Ending, Rank
from handlers.core.identity import Arrival, PartKey, StreamKey
from service.keys import Keys
from service.ports.commit import Commit, PartChange, ResponseChange
from service.settings import Settings
from service.storage import scripts
from service.storage.commit_plan import (
    IDLE_GRAIN_MS,
    MAX_RESPONSES,
    MAX_SERVER_US,
    UNCOUNTED_BYTES,
    PartPlan,
    ResponsePlan,
    ScriptPlan,
    plan_commit,
)
from service.storage.part_codec import FRAGMENT_BYTES, decode_log
from service.storage.records import encode_ending, entry_of_alert, entry_of_letter
from service.storage.sent_cache import SentStates
from tests.packed import unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.core.part_log import PartLog

KEYS = Keys(StreamNames("t"))
KEY = StreamKey("response", "resp_1")
PART = PartKey(KEY, 0, 0, "refusal")
OTHER_PART = PartKey(KEY, 1, 0, "refusal")
LOG, STATE = "t:log:response:resp_1:0:0:refusal", "t:state:response:resp_1"
SETTINGS = Settings(prefix="t", max_part_bytes=10_000, max_event_bytes=2000, max_part_fragments=3000)
ACME = ContextValues(tenant="acme")
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
NOW_S = 1000.0
"""The monotonic time at which calls are planned."""


class Call:
    """A call, decoded as the script decodes it."""

    def __init__(
        self, commit: Commit, sent: SentStates, settings: Settings = SETTINGS, *, now: float = NOW_S
    ) -> None:
        self.call = plan_commit(commit, sent, KEYS, settings, "history", now)
        self.consumer, self.entries, plan, entries_of_effects, *self.blobs = self.call.args
        self.plan = ScriptPlan(*msgspec.msgpack.decode(plan))
        self.entries_of_effects: list[Any] = msgspec.msgpack.decode(entries_of_effects)
        responses: Sequence[Any] = self.plan.responses
        self.responses = [ResponsePlan(*response) for response in responses]

    def key(self, number: int) -> str:
        """Return a key by its number, from 1."""
        assert number > 0
        return self.call.keys[number - 1]

    def blob(self, number: int) -> bytes:
        """Return a blob by its number, from 1."""
        assert number > 0
        return self.blobs[number - 1]

    @property
    def grown(self) -> dict[str, PartLog]:
        """Return the logs that are only appended to, with the chunk for each."""
        first_key = len(self.call.keys) - self.plan.log_count
        first_chunk = len(self.blobs) - self.plan.log_count
        chunks = map(decode_log, self.blobs[first_chunk:])
        return dict(zip(self.call.keys[first_key:], chunks, strict=True))

    @property
    def only(self) -> ResponsePlan:
        """Return the only response that is not append-only."""
        (response,) = self.responses
        return response

    @property
    def only_part(self) -> PartPlan:
        """Return the only part of that response."""
        (part,) = parts_of(self.only)
        return part

    def chunk(self) -> PartLog:
        """Return the chunk of the only part."""
        return decode_log(self.blob(self.only_part.chunk))


def parts_of(response: ResponsePlan) -> list[PartPlan]:
    """Return the parts of a response."""
    parts: Sequence[Any] = response.parts
    return [PartPlan(*part) for part in parts]


class Events:
    """A batch of one response, built event by event, each in an entry of its own."""

    def __init__(self, *milliseconds: int, key: StreamKey = KEY) -> None:
        ids = [f"{ms}-0".encode() for ms in milliseconds]
        self.key, self.change = key, ResponseChange()
        self.commit = Commit(ids, [*milliseconds], [0] * len(ids), {key: self.change})

    def _part(self, part: PartKey) -> PartChange:
        return self.change.parts.setdefault(part, PartChange())

    def delta(self, index: int, text: str = "x", item_id: str | None = None, part: PartKey = PART) -> Events:
        """Add a delta of the batch's entry with this index."""
        change = self._part(part)
        change.add([index], None, [index], [text])
        change.put_in_order()
        change.record_item_id(item_id, index, 0)
        return self

    def close(self, index: int, part: PartKey = PART, text: str = "x") -> Events:
        """Add a closing."""
        arrival = Arrival(self.commit.entry(index), 0)
        self._part(part).close(StoredClosing(arrival, Rank.DONE, text))
        self.change.effect_entries.add(index)
        return self

    def end(self, index: int) -> Events:
        """Add the response's end."""
        self.change.endings[Arrival(self.commit.entry(index), 0)] = Ending(self.key, None, "completed")
        self.change.effect_entries.add(index)
        return self

    def with_context(self, index: int, context: ContextValues = ACME) -> Events:
        """Add an entry's context."""
        self.change.add_context(context, self.commit.entry(index))
        return self

    def plan(self, sent: SentStates, settings: Settings = SETTINGS, *, now: float = NOW_S) -> Call:
        """Return the call for this batch."""
        return Call(self.commit, sent, settings, now=now)

    def store(self, sent: SentStates, *, now: float = NOW_S) -> Call:
        """Return the call for this batch, after recording it as stored."""
        call = self.plan(sent, now=now)
        sent.record(call.call.sends)
        return call


def known_part(**options: Any) -> SentStates:
    """Return the sent states of a process that has stored one delta, of entry 10-0."""
    sent = SentStates()
    Events(10).delta(0, **options).store(sent)
    return sent


def test_the_plan_begins_with_the_batch_and_its_limits() -> None:
    """Pass the entries to acknowledge and the limits of the settings."""
    commit = Commit([b"1-0", b"2-5"], [1, 2], [0, 5])
    call = Call(commit, SentStates())
    assert call.call.keys == [
        "t:deltas",
        "t:dead-letters",
        "t:alerts",
        "t:counts",
        "t:open",
        "t:waiting",
        "t:counted-types",
        "t:counted-fields",
        "t:owners",
    ]
    assert call.entries == b"1-0 2-5"
    assert call.plan == ScriptPlan(
        ttl_ms=round(SETTINGS.state_ttl * 1000),
        fragments_limit=3000,
        fragment_bytes=FRAGMENT_BYTES,
        parts_limit=512,
        ready_at_most=MAX_RESPONSES,
        stalled_ms=250,
        letters=[],
        counted=[],
        touched=[],
        responses=[],
        log_count=0,
        small_logs=0,
        log_limit=3000 * FRAGMENT_BYTES,
        log_prefix=len("t:log:"),
        active=[],
        replication_id="history",
        verifies=True,
        acknowledges=True,
        open_at_most=SETTINGS.max_open_responses,
        uncounted_bytes=UNCOUNTED_BYTES,
        large_limit=64 * 1024 * 1024,
        read_ms=0,
        may_be_owned=True,
    )
    assert call.entries_of_effects == [[], [], []]


def test_a_log_that_only_grows_has_the_lower_of_two_limits() -> None:
    """Pass the lower of the limits in bytes and fragments.

    Otherwise few large deltas would exceed the first.
    """
    settings = Settings(prefix="t", max_part_bytes=2000, max_part_fragments=3000)
    assert Call(Commit([], [], []), SentStates(), settings).plan.log_limit == 2000


def test_letters_counts_and_touched_responses_are_in_the_plan() -> None:
    """Pass dead letters, counts and touched responses. Otherwise entries would vanish when acknowledged."""
    letter = DeadLetter(
        reason="handler_error",
        error="",
        stream="s",
        entry_id="2-0",
        deliveries=1,
        failed_at=NOW,
        entry="{}",
    )
    commit = Commit([b"1-0", b"2-0"], [1, 2], [0, 0])
    commit.dead_letters.append((1, letter))
    commit.counts["keepalive"] = [0, 0, 1]
    commit.touched[KEY] = 2
    call = Call(commit, SentStates())
    assert [*map(list, call.plan.letters)] == [[1, entry_of_letter(letter, "t", without="entry"), 1, 0]]
    assert call.blobs == [letter.entry.encode()]
    assert call.plan.counted == ["keepalive", 3]
    assert call.plan.touched == [2, "response:resp_1"]
    assert call.entries_of_effects == [[], [[0, 0, 1]], []]


def test_a_new_part_is_sent_in_full() -> None:
    """Send a new part with its item id, context and log."""
    call = Events(10, 20).delta(0, "a", "msg_1").delta(1, "b", "msg_1").with_context(0).plan(SentStates())
    response, part = call.only, call.only_part
    assert call.key(response.state) == STATE
    assert (response.member, response.activity_ms) == ("response:resp_1", 20 + IDLE_GRAIN_MS)
    assert (response.context_known, response.closing_ms) == (False, False)
    assert response.registers[::2] == ["tenant"]
    assert response.registers[1].endswith(" acme")
    assert response.endings == []
    assert call.key(part.log) == LOG
    assert part == PartPlan(
        log=part.log,
        chunk=part.chunk,
        field="0:0:refusal",
        fragments=2,
        known=False,
        limit=10_000,
        opening_alert=False,
        digests=[],
        contradiction_alert=False,
    )
    assert call.chunk().item_id == "msg_1"
    assert [fragment.delta for fragment in call.chunk().fragments] == ["a", "b"]
    assert call.plan.log_count == 0
    assert call.call.responses == [KEY]
    assert call.entries_of_effects == [[[[[0, 1]], []]], [], []]


def test_a_part_that_goes_on_only_grows() -> None:
    """Send only the fragments of a known part. Otherwise each delta would repeat its context."""
    sent = SentStates()
    Events(10).delta(0, "a", "msg_1").with_context(0).store(sent)
    call = Events(20).delta(0, "b", "msg_1").with_context(0).plan(sent)
    assert call.responses == []
    ((log, chunk),) = call.grown.items()
    assert log == LOG
    assert [fragment.delta for fragment in chunk.fragments] == ["b"]
    assert chunk.item_id is None
    assert call.call.growing_parts == [PART]
    assert STATE not in call.call.keys
    assert call.entries_of_effects == [[], [], [[0]]]


def test_data_of_a_failed_commit_is_sent_again() -> None:
    """Send data again if its commit failed. Otherwise storage would never get it."""
    sent = SentStates()
    Events(10).delta(0).with_context(0).plan(sent)
    call = Events(20).delta(0).with_context(0).plan(sent)
    assert not call.only_part.known
    assert call.only.registers


def test_a_growing_response_is_noted_as_active_once_a_second() -> None:
    """Send the activity of a growing response once a second. Otherwise each batch would write it."""
    sent = known_part()
    assert Events(20).delta(0).store(sent).plan.active == [20 + IDLE_GRAIN_MS, "response:resp_1"]
    assert Events(20 + IDLE_GRAIN_MS).delta(0).store(sent).plan.active == []
    call = Events(15, 21 + IDLE_GRAIN_MS).delta(0).delta(1).store(sent)
    assert call.plan.active == [21 + 2 * IDLE_GRAIN_MS, "response:resp_1"]


def test_the_latest_of_all_parts_keeps_a_response_active() -> None:
    """Use the latest entry of all its parts for a response's activity."""
    sent = SentStates()
    Events(10).delta(0).delta(0, part=OTHER_PART).store(sent)
    call = Events(5000, 9000).delta(1).delta(0, part=OTHER_PART).plan(sent)
    assert call.plan.active == [9000 + IDLE_GRAIN_MS, "response:resp_1"]
    assert len(call.grown) == 2


def test_the_largest_entry_id_fits_into_a_score() -> None:
    """Leave the maximum entry time as it is, since a larger score would be out of range."""
    last = 2**64 - 1
    assert Events(last).delta(0).plan(SentStates()).only.activity_ms == last


def alert() -> ModerationAlert:
    """Return the opened alert of a refusal."""
    return ModerationAlert(
        type="deltaloom.refusal.opened", id="opened_1", severity="info", text="", raised_at=NOW
    )


@pytest.mark.parametrize(
    "more",
    [
        Events(20).delta(0).end(0),
        Events(20).delta(0).close(0),
        Events(20).delta(0).with_context(0),
        Events(20).delta(0, item_id="msg_1"),
        Events(20).delta(0, part=OTHER_PART),
        Events(20).delta(0).delta(0, part=OTHER_PART),
        Events(20).with_context(0),
    ],
    ids=["end", "closing", "context", "item id", "another part", "one more part", "no part"],
)
def test_a_response_with_news_does_more_than_grow(more: Events) -> None:
    """Send more than an append if there are endings, closings, context, ids or further parts."""
    call = more.plan(known_part())
    assert (call.call.responses, call.plan.log_count, call.call.growing_parts) == ([KEY], 0, [])


def test_an_end_alone_is_news() -> None:
    """Send an ending even if no entry is listed. Otherwise its response would never end."""
    events = Events(20).delta(0).end(0)
    events.change.effect_entries.clear()
    assert events.plan(known_part()).only.endings


def test_a_response_with_known_context_only_is_planned() -> None:
    """Plan a response with known context only. Otherwise its entries would not count as its own."""
    sent = SentStates()
    Events(10).delta(0).with_context(0).store(sent)
    call = Events(20).with_context(0).plan(sent)
    assert (call.only.context_known, call.only.parts, call.only.registers) == (True, [], [])


def test_an_alert_is_news() -> None:
    """Send the alert of a known part. Otherwise a refusal that another worker began would raise none."""
    events = Events(20).delta(0)
    events.change.parts[PART].opening_alert = alert()
    call = events.plan(known_part())
    assert call.only_part.known, "known data is left out as well"
    assert unpacked(call.blob(call.only_part.opening_alert)) == entry_of_alert(alert(), "t")


def test_a_large_log_is_looked_at_chunk_by_chunk() -> None:
    """Check a large log's size with each chunk. Otherwise a part could exceed its limit."""
    sent = known_part()
    sent.mark_large(PART)
    call = Events(20).delta(0).plan(sent)
    assert call.only_part.known
    assert call.plan.log_count == 0


def test_a_time_to_live_is_set_again_after_a_quarter_of_it() -> None:
    """Renew a log's time to live after a quarter of it, and not with each batch."""
    sent = known_part()
    later = NOW_S + SETTINGS.state_ttl / 4
    assert Events(20).delta(0).store(sent, now=later - 1).plan.log_count == 1
    assert not Events(20).delta(0).store(sent, now=later).only_part.known
    assert Events(30).delta(0).plan(sent, now=later).plan.log_count == 1


def test_planning_changes_nothing() -> None:
    """Plan a retry like the first attempt. Otherwise a retry would omit data that storage does not have."""
    sent = known_part(item_id="msg_1")
    events = Events(20, 30).delta(0, item_id="msg_2").delta(1, part=OTHER_PART).close(1).with_context(0)
    assert events.plan(sent).call == events.plan(sent).call


def test_data_that_was_omitted_is_not_recorded_as_sent() -> None:
    """Record only data that a commit sends.

    Otherwise a commit that was planned before the server lost a response would hide the loss.
    """
    sent = SentStates()
    Events(10).delta(0).with_context(0).store(sent)
    call = Events(20).delta(0, part=OTHER_PART).with_context(0).plan(sent)
    assert call.only.context_known
    sent.remove(KEY)
    sent.record(call.call.sends)
    assert Events(30).delta(0, part=OTHER_PART).with_context(0).plan(sent).only.registers


def unpacked_in_commit_lua(beginning: str) -> tuple[str, ...]:
    """Return the names that commit.lua unpacks in the statement that begins so, in lower case."""
    statement = re.search(rf"^ *local ({beginning}[^=]*)=\s*unpack\(", scripts.source("commit"), re.MULTILINE)
    assert statement is not None
    return tuple(re.findall(r"\w+", statement[1].lower()))


def test_the_plans_fields_are_in_the_order_of_commit_lua() -> None:
    """Name the items of the plan as the script does, in its order.

    Otherwise the script would take one value for another.
    """
    assert unpacked_in_commit_lua("TTL_MS, ") == ScriptPlan.__struct_fields__
    assert unpacked_in_commit_lua("state, ") == ResponsePlan.__struct_fields__
    assert unpacked_in_commit_lua("log, ") == PartPlan.__struct_fields__


def test_a_known_part_of_a_response_with_news_leaves_out_what_storage_has() -> None:
    """Omit the item id and context that storage has, also for a closing chunk."""
    sent = SentStates()
    Events(10).delta(0, item_id="msg_1").with_context(0).store(sent)
    call = Events(20).delta(0, item_id="msg_1").close(0).with_context(0).plan(sent)
    assert call.only.context_known
    assert call.only.registers == []
    assert call.only_part.known
    assert call.chunk().item_id is None
    assert [closing.text for closing in call.chunk().closings] == ["x"]


def test_a_response_without_context_was_not_sent() -> None:
    """Report no context as sent for a response without one. Otherwise the script would look for it."""
    assert not Events(20).delta(0).close(0).plan(known_part()).only.context_known


def test_a_closing_fits_into_a_full_part() -> None:
    """Allow closings beyond the limit of fragments. Otherwise a full part could never be finished."""
    limits = [
        Events(10).delta(0).plan(SentStates()).only_part.limit,
        Events(10).delta(0).close(0).plan(SentStates()).only_part.limit,
        Events(10).close(0).plan(SentStates()).only_part.limit,
    ]
    assert limits == [10_000, 10_000, 10_000 + 4 * 2000]


def test_the_earliest_closing_decides_how_long_a_response_waits() -> None:
    """Pass the earliest closing. Otherwise a text would be settled too late."""
    both = Events(10, 20, 30).delta(0).close(1).end(2)
    assert both.plan(SentStates()).only.closing_ms == 20
    assert Events(10, 20, 30).close(2, OTHER_PART).close(1).plan(SentStates()).only.closing_ms == 20
    assert Events(10, 20, 30).close(2).end(1).plan(SentStates()).only.closing_ms == 20


def test_the_latest_entry_counts_whatever_it_contains() -> None:
    """Pass the latest entry's time, for a delta as for an end."""
    assert Events(10, 20).delta(0).end(1).plan(SentStates()).only.activity_ms == 20 + IDLE_GRAIN_MS
    assert Events(10, 20).end(0).delta(1).plan(SentStates()).only.activity_ms == 20 + IDLE_GRAIN_MS
    assert (
        Events(10, 20).delta(1).delta(0, part=OTHER_PART).plan(SentStates()).only.activity_ms
        == 20 + IDLE_GRAIN_MS
    )


def test_an_ending_is_a_blob_under_its_arrival() -> None:
    """Pass an ending as a blob with its arrival. Otherwise two endings would be merged."""
    events = Events(10, 20).delta(0).end(0).end(1)
    call = events.plan(SentStates())
    endings = call.only.endings
    assert endings[::2] == ["10-0:0", "20-0:0"]
    assert [call.blob(int(number)) for number in endings[1::2]] == [
        encode_ending(ending) for ending in events.change.endings.values()
    ]
    assert call.entries_of_effects == [[[[[0]], [0, 1]]], [], []]


def test_an_item_id_has_its_entry() -> None:
    """Record the entry of an item id, so that the earliest entry decides in any order of commits."""
    late = Events(10, 30).delta(0).delta(1, item_id="late").plan(SentStates()).blobs[0]
    between = Events(20).delta(0, item_id="between").plan(SentStates()).blobs[0]
    first = Events(10).delta(0, item_id="first").plan(SentStates()).blobs[0]
    assert decode_log(late).item_id == "late"
    assert decode_log(late + between).item_id == "between"
    assert decode_log(late + between + first).item_id == "first"


def test_differing_item_ids_are_sent() -> None:
    """Record that item ids differ. Otherwise a text could be finished before its first event arrives."""
    sent = known_part(item_id="msg_1")
    call = Events(20, 30).delta(0, item_id="msg_1").delta(1, item_id="msg_2").store(sent)
    assert call.chunk().ids_differ
    assert Events(40).delta(0, item_id="msg_3").plan(sent).plan.log_count == 1
    same = Events(10, 20).delta(0, item_id="a").delta(1, item_id="a").plan(SentStates())
    assert not same.chunk().ids_differ


def test_keys_and_blobs_go_by_their_numbers_for_several_responses() -> None:
    """Number keys and blobs across responses. Otherwise one response's text would be stored for another."""
    sent = known_part()
    commit = Events(20, 21).delta(0, "grows").commit
    for name in ("a", "b"):
        key = StreamKey("response", name)
        commit.responses |= (
            Events(20, 21, key=key).delta(1, name, part=PartKey(key, 0, 0, "refusal")).commit.responses
        )
    call = Call(commit, sent)
    assert [call.key(response.state) for response in call.responses] == [
        "t:state:response:a",
        "t:state:response:b",
    ]
    parts = [part for response in call.responses for part in parts_of(response)]
    assert [call.key(part.log) for part in parts] == [f"t:log:response:{n}:0:0:refusal" for n in "ab"]
    texts = [decode_log(call.blob(part.chunk)).fragments[0].delta for part in parts]
    assert texts == ["a", "b"]
    assert [*call.grown] == [LOG]
    assert call.entries_of_effects == [[[[[1]], []], [[[1]], []]], [], [[0]]]


def growing_batch(responses: int, entries: int) -> Commit:
    """Return a batch that begins a part of each of several responses, and has further entries."""
    ids = [f"{1000 + number}-0".encode() for number in range(entries)]
    commit = Commit(ids, [1000 + number for number in range(entries)], [0] * entries)
    for number in range(responses):
        key = StreamKey("response", f"resp_{number}")
        change = commit.responses[key] = ResponseChange()
        part_change = change.parts[PartKey(key, 0, 0, "refusal")] = PartChange()
        part_change.add([number], None, [1], ["x"])
    return commit


@pytest.mark.parametrize(
    ("responses", "entries", "pieces", "is_divisible"),
    [(10, 10, 1, True), (3000, 3000, 3, True), (5000, 20_000, 5, False)],
    ids=["small", "many responses", "many entries"],
)
def test_pieces_of_a_plan_take_less_than_the_limit(
    *, responses: int, entries: int, pieces: int, is_divisible: bool
) -> None:
    """Count the time that each piece repeats. Otherwise a piece would block the server for too long."""
    plan = Call(commit := growing_batch(responses, entries), SentStates()).call
    assert (plan.pieces, plan.is_divisible) == (pieces, is_divisible)
    if is_divisible:
        for piece in commit.pieces(pieces):
            assert Call(piece, SentStates()).call.server_us <= MAX_SERVER_US


def test_pieces_share_the_responses() -> None:
    """Store each response in one piece, and acknowledge with the last one only."""
    commit = growing_batch(10, 10)
    pieces = list(commit.pieces(3))
    assert sorted(key.value for piece in pieces for key in piece.responses) == sorted(
        key.value for key in commit.responses
    )
    assert [len(piece.responses) for piece in pieces] == [4, 3, 3]
    assert [piece.acknowledges for piece in pieces] == [False, False, True]
    assert len(list(growing_batch(2, 2).pieces(3))) == 2
