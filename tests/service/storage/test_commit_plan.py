"""Tests of the plan that commit.lua carries out, and of what it leaves out because storage has it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest

from deltaloom import DeadLetter, ModerationAlert, StreamNames
from handlers.core.assembly import StoredClosing
from handlers.core.effects import Context, Ending, Rank
from handlers.core.identity import Arrival, PartKey, StreamKey
from handlers.core.log import FRAGMENT_BYTES, PartLog, decode_log
from service.keys import Keys
from service.ports.commit import Commit, PartChange, ResponseChange
from service.settings import Settings
from service.storage.commit_plan import AT_MOST, IDLE_GRAIN_MS, LARGE_BYTES, CommitCall
from service.storage.records import encode_ending, entry_of_alert, entry_of_letter
from service.storage.sent_cache import Told

KEYS = Keys(StreamNames("t"))
KEY = StreamKey("response", "resp_1")
PART = PartKey(KEY, 0, 0, "refusal")
OTHER_PART = PartKey(KEY, 1, 0, "refusal")
LOG, STATE = "t:log:response:resp_1:0:0:refusal", "t:state:response:resp_1"
SETTINGS = Settings(prefix="t", max_part_bytes=10_000, max_event_bytes=2000, max_part_fragments=3000)
ACME = Context(tenant="acme")
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Planned(NamedTuple):
    """The plan, by the names that commit.lua gives its values."""

    ttl_ms: int
    fragments_limit: int
    fragment_bytes: int
    parts_limit: int
    ready_at_most: int
    stalled_ms: int
    letters: list[Any]
    types: list[Any]
    touched: list[Any]
    responses: list[list[Any]]
    log_count: int
    log_limit: int
    log_prefix: int
    active: list[Any]
    history: str
    acknowledges: bool
    open_at_most: int
    large_bytes: int
    large_limit: int


class PlannedResponse(NamedTuple):
    """One response of a plan."""

    state: int
    marker: int
    member: str
    latest_ms: int
    told: bool
    closing_ms: int | bool
    parts: list[Any]
    registers: list[str]
    endings: list[Any]
    notes: list[Any]
    notes_count: int
    announced: int


class PlannedPart(NamedTuple):
    """One part of a response."""

    log: int
    chunk: int
    field: str
    fragments: int
    known: bool
    limit: int
    opened: list[str] | bool
    digests: list[str]
    contradicted: list[str] | bool


class Call:
    """A call, read as the script reads it."""

    def __init__(self, commit: Commit, told: Told, settings: Settings = SETTINGS) -> None:
        self.call = CommitCall(commit, KEYS, settings, told, "history")
        self.consumer, self.entries, plan, whose, *self.blobs = self.call.args
        self.plan = Planned(*msgspec.msgpack.decode(plan))
        self.whose: list[Any] = msgspec.msgpack.decode(whose)
        self.responses = [PlannedResponse(*response) for response in self.plan.responses]

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
        """The logs that only grow, with what they get."""
        first_key = len(self.call.keys) - self.plan.log_count
        first_chunk = len(self.blobs) - self.plan.log_count
        chunks = map(decode_log, self.blobs[first_chunk:])
        return dict(zip(self.call.keys[first_key:], chunks, strict=True))

    @property
    def only(self) -> PlannedResponse:
        """The only response that does more than grow."""
        (response,) = self.responses
        return response

    @property
    def only_part(self) -> PlannedPart:
        """The only part of it."""
        return PlannedPart(*self.only.parts)

    def chunk(self) -> PartLog:
        """Return what the only part gets."""
        return decode_log(self.blob(self.only_part.chunk))


class Events:
    """A batch of one response, event by event, each in an entry of its own."""

    def __init__(self, *milliseconds: int, key: StreamKey = KEY) -> None:
        ids = [f"{ms}-0".encode() for ms in milliseconds]
        self.key, self.change = key, ResponseChange()
        self.commit = Commit(ids, [*milliseconds], [0] * len(ids), {key: self.change})

    def _part(self, part: PartKey) -> PartChange:
        return self.change.parts.setdefault(part, PartChange())

    def delta(self, index: int, text: str = "x", item_id: str | None = None, part: PartKey = PART) -> Events:
        """Add a delta from the batch's entry of this index."""
        change = self._part(part)
        change.add([index], None, [index], [text])
        change.put_in_order()
        change.name(item_id, index, 0)
        return self

    def close(self, index: int, part: PartKey = PART, text: str = "x") -> Events:
        """Add a closing."""
        arrival = Arrival(self.commit.entry(index), 0)
        self._part(part).close(StoredClosing(arrival, Rank.DONE, text))
        self.change.entries.add(index)
        return self

    def end(self, index: int) -> Events:
        """Add the response's end."""
        self.change.endings[Arrival(self.commit.entry(index), 0)] = Ending(self.key, None, "completed")
        self.change.entries.add(index)
        return self

    def say(self, index: int, context: Context = ACME) -> Events:
        """Add what an entry says of the response."""
        self.change.say(context, self.commit.entry(index))
        return self

    def plan(self, told: Told, settings: Settings = SETTINGS) -> Call:
        """Return the call for it."""
        return Call(self.commit, told, settings)

    def store(self, told: Told) -> Call:
        """Return the call for it, after it was made."""
        call = self.plan(told)
        call.call.stored()
        return call


def known_part(**said: Any) -> Told:
    """Return the memory of a process that has stored one delta, of the entry 10-0."""
    told = Told()
    Events(10).delta(0, **said).store(told)
    return told


def test_the_plan_begins_with_the_batch_and_its_limits() -> None:
    """The script would acknowledge other entries, or cut a part at another size than the settings say."""
    commit = Commit([b"1-0", b"2-5"], [1, 2], [0, 5])
    call = Call(commit, Told())
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
    assert call.plan == Planned(
        ttl_ms=round(SETTINGS.state_ttl * 1000),
        fragments_limit=3000,
        fragment_bytes=FRAGMENT_BYTES,
        parts_limit=512,
        ready_at_most=AT_MOST,
        stalled_ms=250,
        letters=[],
        types=[],
        touched=[],
        responses=[],
        log_count=0,
        log_limit=3000 * FRAGMENT_BYTES,
        log_prefix=len("t:log:"),
        active=[],
        history="history",
        acknowledges=True,
        open_at_most=SETTINGS.max_open_responses,
        large_bytes=LARGE_BYTES,
        large_limit=64 * 1024 * 1024,
    )
    assert call.whose == [[], [], []]


def test_a_log_that_only_grows_has_the_lower_of_two_limits() -> None:
    """A part of few, large deltas would grow beyond its bytes unseen."""
    settings = Settings(prefix="t", max_part_bytes=2000, max_part_fragments=3000)
    assert Call(Commit([], [], []), Told(), settings).plan.log_limit == 2000


def test_what_belongs_to_no_text_is_in_the_plan() -> None:
    """An entry would be acknowledged, and neither counted nor kept as a dead letter."""
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
    call = Call(commit, Told())
    assert call.plan.letters == [[1, entry_of_letter(letter, "t", without="entry"), 1, 0]]
    assert call.blobs == [letter.entry.encode()]
    assert call.plan.types == ["keepalive", 3]
    assert call.plan.touched == [2, "response:resp_1"]
    assert call.whose == [[], [[0, 0, 1]], []]


def test_a_part_that_begins_is_told_in_full() -> None:
    """A text would come out without its item id, or its log never expire."""
    call = Events(10, 20).delta(0, "a", "msg_1").delta(1, "b", "msg_1").say(0).plan(Told())
    response, part = call.only, call.only_part
    assert call.key(response.state) == STATE
    assert (response.member, response.latest_ms) == ("response:resp_1", 20 + IDLE_GRAIN_MS)
    assert (response.told, response.closing_ms) == (False, False)
    assert response.registers[::2] == ["tenant"]
    assert response.registers[1].endswith(" acme")
    assert response.endings == []
    assert call.key(part.log) == LOG
    assert part[2:] == ("0:0:refusal", 2, False, 10_000, False, [], False)
    assert call.chunk().item_id == "msg_1"
    assert [fragment.delta for fragment in call.chunk().fragments] == ["a", "b"]
    assert call.plan.log_count == 0
    assert call.call.responses == [KEY]
    assert call.whose == [[[[[0, 1]], []]], [], []]


def test_a_part_that_goes_on_only_grows() -> None:
    """Each of a million deltas would be sent with its response's context."""
    told = Told()
    Events(10).delta(0, "a", "msg_1").say(0).store(told)
    call = Events(20).delta(0, "b", "msg_1").say(0).plan(told)
    assert call.responses == []
    ((log, chunk),) = call.grown.items()
    assert log == LOG
    assert [fragment.delta for fragment in chunk.fragments] == ["b"]
    assert chunk.item_id is None
    assert [(key, part.field) for key, part in call.call.grown] == [(KEY, "0:0:refusal")]
    assert STATE not in call.call.keys
    assert call.whose == [[], [], [[0]]]


def test_what_was_not_stored_is_told_again() -> None:
    """Storage would never have what a commit that failed was to bring."""
    told = Told()
    Events(10).delta(0).say(0).plan(told)
    call = Events(20).delta(0).say(0).plan(told)
    assert not call.only_part.known
    assert call.only.registers


def test_a_growing_response_is_noted_as_active_once_a_second() -> None:
    """A text in mid-stream would be given up as idle; or each batch would write to the set of open ones."""
    told = known_part()
    assert Events(20).delta(0).store(told).plan.active == [20 + IDLE_GRAIN_MS, "response:resp_1"]
    assert Events(20 + IDLE_GRAIN_MS).delta(0).store(told).plan.active == []
    call = Events(15, 21 + IDLE_GRAIN_MS).delta(0).delta(1).store(told)
    assert call.plan.active == [21 + 2 * IDLE_GRAIN_MS, "response:resp_1"]


def test_the_latest_of_all_parts_keeps_a_response_active() -> None:
    """A response that streams two texts would be given up by the time of the slower one."""
    told = Told()
    Events(10).delta(0).delta(0, part=OTHER_PART).store(told)
    call = Events(5000, 9000).delta(1).delta(0, part=OTHER_PART).plan(told)
    assert call.plan.active == [9000 + IDLE_GRAIN_MS, "response:resp_1"]
    assert len(call.grown) == 2


def test_an_entry_of_the_end_of_time_fits_into_a_score() -> None:
    """An explicit entry id would be a number that no server takes."""
    last = 2**64 - 1
    assert Events(last).delta(0).plan(Told()).only.latest_ms == last


def alert() -> ModerationAlert:
    """Return an alert of a refusal that begins."""
    return ModerationAlert(
        type="deltaloom.refusal.opened", id="opened_1", severity="info", text="", raised_at=NOW
    )


@pytest.mark.parametrize(
    "more",
    [
        Events(20).delta(0).end(0),
        Events(20).delta(0).close(0),
        Events(20).delta(0).say(0),
        Events(20).delta(0, item_id="msg_1"),
        Events(20).delta(0, part=OTHER_PART),
        Events(20).delta(0).delta(0, part=OTHER_PART),
        Events(20).say(0),
    ],
    ids=["end", "closing", "context", "item id", "another part", "one more part", "no part"],
)
def test_a_response_with_news_does_more_than_grow(more: Events) -> None:
    """The news would be acknowledged and lost."""
    call = more.plan(known_part())
    assert (call.call.responses, call.plan.log_count, call.call.grown) == ([KEY], 0, [])


def test_an_end_alone_is_news() -> None:
    """A response would never end."""
    events = Events(20).delta(0).end(0)
    events.change.entries.clear()
    assert events.plan(known_part()).only.endings


def test_a_response_of_which_only_the_context_is_told_again_is_planned() -> None:
    """It would be left out of the plan, and no entry of it be counted as its own."""
    told = Told()
    Events(10).delta(0).say(0).store(told)
    call = Events(20).say(0).plan(told)
    assert (call.only.told, call.only.parts, call.only.registers) == (True, [], [])


def test_an_alert_is_news() -> None:
    """Nobody would be told of a refusal that another worker has begun."""
    events = Events(20).delta(0)
    events.change.parts[PART].opened = alert()
    call = events.plan(known_part())
    assert call.only_part.known, "what storage has is left out all the same"
    assert call.only_part.opened == entry_of_alert(alert(), "t")


def test_a_large_log_is_looked_at_chunk_by_chunk() -> None:
    """A part would grow beyond its limit."""
    told = known_part()
    response = told.get(KEY)
    assert response is not None
    response.parts[PART].large = True
    call = Events(20).delta(0).plan(told)
    assert call.only_part.known
    assert call.plan.log_count == 0


def test_a_time_to_live_is_set_again_after_a_quarter_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a text that streams for days would expire under it; or be set with each batch."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("service.storage.commit_plan.time", SimpleNamespace(monotonic=lambda: clock.now))
    told = known_part()
    clock.now += SETTINGS.state_ttl / 4 - 1
    assert Events(20).delta(0).store(told).plan.log_count == 1
    clock.now += 1
    call = Events(20).delta(0).store(told)
    assert not call.only_part.known
    assert Events(30).delta(0).plan(told).plan.log_count == 1


def test_a_known_part_of_a_response_with_news_leaves_out_what_storage_has() -> None:
    """The last chunk of each text would carry what the first one did."""
    told = Told()
    Events(10).delta(0, item_id="msg_1").say(0).store(told)
    call = Events(20).delta(0, item_id="msg_1").close(0).say(0).plan(told)
    assert call.only.told
    assert call.only.registers == []
    assert call.only_part.known
    assert call.chunk().item_id is None
    assert [closing.text for closing in call.chunk().closings] == ["x"]


def test_a_response_that_says_nothing_was_not_told() -> None:
    """The script would look for registers that were never there, and ask for them again and again."""
    assert not Events(20).delta(0).close(0).plan(known_part()).only.told


def test_a_closing_fits_into_a_full_part() -> None:
    """A part that is just full could never be finished; or a delta would be taken beyond its limit."""
    limits = [
        Events(10).delta(0).plan(Told()).only_part.limit,
        Events(10).delta(0).close(0).plan(Told()).only_part.limit,
        Events(10).close(0).plan(Told()).only_part.limit,
    ]
    assert limits == [10_000, 10_000, 10_000 + 4 * 2000]


def test_the_earliest_closing_decides_how_long_a_response_waits() -> None:
    """A text would be looked at too late, when its neighbour is closed."""
    both = Events(10, 20, 30).delta(0).close(1).end(2)
    assert both.plan(Told()).only.closing_ms == 20
    assert Events(10, 20, 30).close(2, OTHER_PART).close(1).plan(Told()).only.closing_ms == 20
    assert Events(10, 20, 30).close(2).end(1).plan(Told()).only.closing_ms == 20


def test_the_latest_entry_counts_whatever_it_brings() -> None:
    """A response would be given up by its last delta though its end has just come, or the other way round."""
    assert Events(10, 20).delta(0).end(1).plan(Told()).only.latest_ms == 20 + IDLE_GRAIN_MS
    assert Events(10, 20).end(0).delta(1).plan(Told()).only.latest_ms == 20 + IDLE_GRAIN_MS
    assert Events(10, 20).delta(1).delta(0, part=OTHER_PART).plan(Told()).only.latest_ms == 20 + IDLE_GRAIN_MS


def test_an_ending_is_a_blob_under_its_arrival() -> None:
    """Two ends of a response would be one, or the script store another's bytes."""
    events = Events(10, 20).delta(0).end(0).end(1)
    call = events.plan(Told())
    endings = call.only.endings
    assert endings[::2] == ["10-0:0", "20-0:0"]
    assert [call.blob(number) for number in endings[1::2]] == [
        encode_ending(ending) for ending in events.change.endings.values()
    ]
    assert call.whose == [[[[[0]], [0, 1]]], [], []]


def test_an_item_id_of_a_later_entry_says_so() -> None:
    """A text would have the item id of whichever batch came first, and not of the earliest entry."""
    late = Events(10, 30).delta(0).delta(1, item_id="late").plan(Told()).blobs[0]
    between = Events(20).delta(0, item_id="between").plan(Told()).blobs[0]
    first = Events(10).delta(0, item_id="first").plan(Told()).blobs[0]
    assert decode_log(late).item_id == "late"
    assert decode_log(late + between).item_id == "between"
    assert decode_log(late + between + first).item_id == "first"


def test_item_ids_that_differ_are_told() -> None:
    """A text would be taken for certain while its first event, with another item id, is still to come."""
    told = known_part(item_id="msg_1")
    call = Events(20, 30).delta(0, item_id="msg_1").delta(1, item_id="msg_2").store(told)
    assert call.chunk().ids_differ
    assert Events(40).delta(0, item_id="msg_3").plan(told).plan.log_count == 1
    same = Events(10, 20).delta(0, item_id="a").delta(1, item_id="a").plan(Told())
    assert not same.chunk().ids_differ


def test_keys_and_blobs_go_by_their_numbers_for_several_responses() -> None:
    """One response's text would be stored as another's."""
    told = known_part()
    commit = Events(20, 21).delta(0, "grows").commit
    for name in ("a", "b"):
        key = StreamKey("response", name)
        commit.responses |= (
            Events(20, 21, key=key).delta(1, name, part=PartKey(key, 0, 0, "refusal")).commit.responses
        )
    call = Call(commit, told)
    assert [call.key(response.state) for response in call.responses] == [
        "t:state:response:a",
        "t:state:response:b",
    ]
    parts = [PlannedPart(*response.parts) for response in call.responses]
    assert [call.key(part.log) for part in parts] == [f"t:log:response:{n}:0:0:refusal" for n in "ab"]
    texts = [decode_log(call.blob(part.chunk)).fragments[0].delta for part in parts]
    assert texts == ["a", "b"]
    assert [*call.grown] == [LOG]
    assert call.whose == [[[[[1]], []], [[[1]], []]], [], [[0]]]
