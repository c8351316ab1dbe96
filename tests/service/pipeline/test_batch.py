"""Test the decoding of entries into a commit: a bad event costs only itself, and no error shows its text."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom import limits
from deltaloom.events import Event, RefusalDelta
from handlers import BUILT_IN, OFF_BY_DEFAULT
from handlers.core.assembly import StoredClosing, StoredFragment
from handlers.core.context import Register, RegisterName, context_of
from handlers.core.effects import (
    CONTEXT_NAMES,
    Checksum,
    Closing,
    ContextValues,
    Copy,
    Ending,
    Fragment,
    ModelChange,
    Note,
    Origin,
    Rank,
)
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.outputs import time_of
from handlers.core.routing import Handler, Route, RoutingTable
from handlers.core.text import text_digest
from service.bus.envelope import open_entry
from service.field_json import fields_of
from service.pipeline.batch import Batch
from service.pipeline.decode import Unreadable
from service.ports.commit import PartChange
from service.ports.storage import Contradicted, Entry
from tests.client.test_events import BEGINNINGS, GOOD, INDEXES, REQUIRED
from tests.service.pipeline.model import batch_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltaloom.messages import DeadLetter, ModerationAlert
    from handlers.core.effects import Effect

TABLE = RoutingTable(BUILT_IN.values())
DEFAULT = RoutingTable(handler for name, handler in BUILT_IN.items() if name not in OFF_BY_DEFAULT)
KEY = StreamKey("response", "resp_1")
PART = PartKey(KEY, 0, 0, "refusal")
DELTA = GOOD[RefusalDelta]


def entry(value: Any, number: int = 0, response_id: str | None = "resp_1", **context: str) -> Entry:
    """Return an entry with this JSON (bytes are used unchanged) in its field `event`."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    fields = {name.encode(): text.encode() for name, text in context.items()}
    if response_id is not None:
        fields[b"response_id"] = response_id.encode()
    return open_entry(f"{1000 + number}-0".encode(), {b"event": body, **fields})


def at(number: int = 0, position: int = 0) -> Arrival:
    """Return the arrival of an event in the entry with this number."""
    return Arrival(EntryId(1000 + number, 0), position)


def letters(batch: Batch) -> list[tuple[int, str, str]]:
    """Return the dead letters as (index of the entry, reason, error)."""
    return [(index, letter.reason, letter.error) for index, letter in batch.commit.dead_letters]


# ---------------------------------------------------------------------------------------------------- effects


def test_events_become_the_sets_of_their_parts() -> None:
    """Collect the fragments, closings and ids of each part from its events."""
    done = {"type": "response.refusal.done", "refusal": "no!", "output_index": 0, "content_index": 0}
    batch = batch_of(
        [entry(DELTA | {"delta": "no"}), entry([DELTA | {"delta": "!", "sequence_number": 2}, done], 1)],
        TABLE,
    )
    (change,) = batch.commit.responses[KEY].parts.values()
    assert batch.commit.fragments(change) == [StoredFragment(at(), 1, "no"), StoredFragment(at(1), 2, "!")]
    assert change.closings == [StoredClosing(at(1, 1), Rank.DONE, "no!")]
    assert change.item_id == "it_1"
    assert change.entries == [0, 1]
    assert batch.commit.entries == [b"1000-0", b"1001-0"]
    assert batch.commit.responses[KEY].effect_entries == {1}
    assert (batch.commit.dead_letters, batch.commit.counts) == ([], {})


def test_without_a_response_id_each_item_is_its_own() -> None:
    """Use the item id as stream key if there is no response id. Otherwise texts of items would be joined."""
    batch = batch_of([entry(DELTA, 0, None), entry(DELTA | {"item_id": "it_2"}, 1, None)], TABLE)
    assert list(batch.commit.responses) == [StreamKey("item", "it_1"), StreamKey("item", "it_2")]


def test_an_event_without_any_id_is_a_dead_letter() -> None:
    """Make a dead letter of an event without any id. Otherwise it would vanish or join other events."""
    batch = batch_of([entry({name: DELTA[name] for name in DELTA if name != "item_id"}, 0, None)], TABLE)
    assert letters(batch) == [
        (
            0,
            "invalid_event",
            (
                "the event has no item_id, and its entry has no response_id; "
                "publish it with the field response_id"
            ),
        )
    ]
    assert batch.commit.responses == {}


def test_copies_of_kinds_that_are_off_are_left_out() -> None:
    """Leave out copies of disabled kinds. Otherwise answers would be stored although their handler is off."""
    item = {
        "type": "message",
        "content": [{"type": "output_text", "text": "well"}, {"type": "refusal", "refusal": "no"}],
    }
    events = [
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"output": [item]}},
    ]
    response = batch_of([entry(events)], DEFAULT).commit.responses[KEY]
    assert [part.kind for part in response.parts] == ["refusal"]
    assert response.endings[at(0, 1)].copies == (Copy(None, 0, 1, "refusal", "no"),)


def test_ends_are_kept_by_arrival() -> None:
    """Store endings by arrival. Otherwise a second one would overwrite the first, or a repeat count twice."""
    failed = {"type": "response.failed", "response": {}}
    response = batch_of([entry([{"type": "error", "code": "x"}, failed])], TABLE).commit.responses[KEY]
    assert response.endings == {
        at(0, 0): Ending(KEY, None, "failed", "x", (), "unknown"),
        at(0, 1): Ending(KEY, None, "failed", None, (), "error"),
    }


def test_context_is_noted_by_source_and_entry() -> None:
    """Keep the earliest value of each name, and producer values apart from learned ones."""
    created = {"type": "response.created", "response": {"model": "learned", "safety_identifier": "u"}}
    entries = [
        entry(DELTA, 3, tenant="late", model="m"),
        entry(DELTA, 1, tenant="early"),
        entry(created, 0),
        entry(DELTA, 4, tenant="later", model="other"),
    ]
    batch = batch_of(entries, TABLE)
    assert batch.commit.responses[KEY].registers == {
        RegisterName("tenant"): Register(EntryId(1001, 0), "early"),
        RegisterName("model"): Register(EntryId(1003, 0), "m"),
        RegisterName("model", learned=True): Register(EntryId(1000, 0), "learned"),
        RegisterName("safety_identifier", learned=True): Register(EntryId(1000, 0), "u"),
    }


# ----------------------------------------------------------------------------------------------------- counts


def test_unknown_types_are_counted() -> None:
    """Count events of unknown type. Otherwise they would vanish, or become dead letters."""
    batch = batch_of(
        [entry([{"type": "keepalive"}, {"type": "new"}, {"type": "keepalive"}]), entry(b"[DONE]", 1)], TABLE
    )
    assert batch.commit.counts == {"type:keepalive": [0, 0], "type:new": [0], "type:[DONE]": [1]}
    assert (batch.commit.dead_letters, batch.commit.responses) == ([], {})


def test_types_that_are_off_are_counted() -> None:
    """Count events of disabled handlers. Otherwise they would become dead letters."""
    batch = batch_of([entry({"type": "response.output_text.delta"})], DEFAULT)
    assert batch.commit.counts == {"type:response.output_text.delta": [0]}


def test_types_beyond_a_thousand_of_a_batch_are_counted_together() -> None:
    """Count types beyond the first 1000 of a batch as "(other)".

    Otherwise made-up types would block the server.
    """
    entries = [entry({"type": f"made.up.{number}"}, number) for number in range(1002)]
    counted = batch_of(entries, TABLE).commit.counts
    assert len(counted) == 1001
    assert counted["type:(other)"] == [1000, 1001]


@pytest.mark.parametrize(("name", "counted"), [("x" * 300, "x" * 100), ("a\ud83d", "a?"), ("", "")])
def test_name_of_a_type_is_kept_small_and_clean(name: str, counted: str) -> None:
    """Limit and clean a type's name.

    Otherwise names could fill the server, or a lone surrogate stop the worker.
    """
    assert list(batch_of([entry({"type": name})], TABLE).commit.counts) == [f"type:{counted}"]


@pytest.mark.parametrize(
    ("response_id", "event", "touched"),
    [
        ("resp_1", {}, {KEY: 1000}),
        (None, {"item_id": "it_1"}, {StreamKey("item", "it_1"): 1000}),
        (None, {}, {}),
        (None, {"item_id": 7}, {}),
        (None, {"item_id": "a\ud83d"}, {}),
    ],
)
def test_counted_events_keep_their_response_alive(
    response_id: str | None, event: dict[str, Any], touched: dict[StreamKey, int]
) -> None:
    """Keep a response active through counted events. Otherwise its open texts would be given up as idle."""
    batch = batch_of([entry({"type": "keepalive", **event}, 0, response_id)], TABLE)
    assert batch.commit.touched == touched


# ----------------------------------------------------------------------------------------------- dead letters


def test_neighbours_in_the_batch_and_in_the_array_go_on() -> None:
    """Process the good neighbours of a bad event, in its batch and in its array."""
    bad = DELTA | {"output_index": "x"}
    batch = batch_of([entry(b"{"), entry([DELTA, bad, 7, DELTA | {"delta": "y"}], 1), entry(DELTA, 2)], TABLE)
    assert [(index, reason) for index, reason, _ in letters(batch)] == [
        (0, "malformed_json"),
        (1, "invalid_event"),
        (1, "invalid_event"),
    ]
    (change,) = batch.commit.responses[KEY].parts.values()
    assert [fragment.arrival for fragment in batch.commit.fragments(change)] == [at(1, 0), at(1, 3), at(2)]
    assert batch.commit.entries == [b"1000-0", b"1001-0", b"1002-0"]


def test_letter_of_one_event_holds_it_alone() -> None:
    """Keep only the bad event in its letter. Otherwise a replay would repeat its good neighbours."""
    batch = batch_of([entry([DELTA, {"type": 7}])], TABLE)
    ((_, letter),) = batch.commit.dead_letters
    assert fields_of(letter.entry) == {"event": b'{"type": 7}', "response_id": b"resp_1"}


def test_letter_of_an_array_of_one_is_the_entry() -> None:
    """Keep the entry of a one-element array unchanged, so that a replay writes what the producer wrote."""
    batch = batch_of([entry(b'[{"type": 7}]')], TABLE)
    ((_, letter),) = batch.commit.dead_letters
    assert fields_of(letter.entry)["event"] == b'[{"type": 7}]'


@pytest.mark.parametrize(("model", "name"), REQUIRED)
def test_missing_field_is_named(model: type[Event], name: str) -> None:
    """Name the missing field in the error."""
    event = {key: value for key, value in GOOD[model].items() if key != name}
    ((_, reason, error),) = letters(batch_of([entry(event)], TABLE))
    assert reason == "invalid_event"
    if name == "type":
        assert error == "the event's type is missing, or is not a string"
    else:
        assert error == f"{GOOD[model]['type']}: {name}: Field required"


@pytest.mark.parametrize(("model", "name"), [each for each in INDEXES if each[0] not in BEGINNINGS])
def test_mistyped_field_is_named(model: type[Event], name: str) -> None:
    """Name the mistyped field in the error."""
    ((_, reason, error),) = letters(batch_of([entry(GOOD[model] | {name: "x"})], TABLE))
    assert (reason, error) == (
        "invalid_event",
        f"{GOOD[model]['type']}: {name}: Input should be a valid integer",
    )


@pytest.mark.parametrize(("model", "name"), INDEXES)
def test_flat_number_is_read_from_its_digits(model: type[Event], name: str) -> None:
    """Read numbers of flat fields from strings.

    Otherwise events typed into redis-cli would be dead letters.
    """
    flat = {
        key: json.dumps(value) if isinstance(value, dict) else str(value)
        for key, value in GOOD[model].items()
    }
    flat |= {name: "3", "response_id": "resp_1"}
    fields = {key.encode(): value.encode() for key, value in flat.items()}
    batch = batch_of([open_entry(b"1-0", fields)], TABLE)
    assert batch.commit.dead_letters == []
    change = batch.commit.responses[KEY]
    indexes = {index for part in change.parts for index in (part.output_index, part.content_index)}
    indexes |= {
        index
        for note in change.notes.values()
        for copy in note.announced
        for index in (copy.output_position, copy.content_index)
    }
    assert 3 in indexes | {ending.output_index for ending in change.endings.values()}


def _raising(_event: RefusalDelta, _origin: Origin) -> Iterator[Effect]:
    yield Fragment(PART, "before it raised")
    message = "the text: I'm sorry"
    raise KeyError(message)


def test_handler_that_raises_costs_its_event_only() -> None:
    """Drop all effects of an event if its handler raises, and process its neighbours."""
    table = RoutingTable([Handler("bad", (Route(RefusalDelta, _raising),)), BUILT_IN["reasoning"]])
    reasoning = {"type": "response.reasoning_text.delta", "delta": "x", "output_index": 0, "content_index": 0}
    batch = batch_of([entry([DELTA, reasoning])], table)
    ((index, reason, error),) = letters(batch)
    assert (index, reason) == (0, "handler_error")
    place, _, line = error.rpartition(":")
    assert place == "the handler of response.refusal.delta raised KeyError at test_batch.py"
    assert line.isdigit()
    assert [part.kind for part in batch.commit.responses[KEY].parts] == ["reasoning"]


MARKER = "ZQXMARKERXQZ"
"""A stand-in for a text. No error message of deltaloom or pydantic contains it."""

marked_values = st.sampled_from(
    [
        MARKER,
        [MARKER],
        {MARKER: MARKER},
        {"type": MARKER},
        {"type": "message", "content": MARKER},
        MARKER + "\ud83d",
    ]
)


def _reported(letters: list[tuple[int, DeadLetter]]) -> str:
    return "\n".join(letter.error for _, letter in letters)


@given(st.sampled_from(list(GOOD)), st.data())
def test_no_error_shows_a_text(model: type[Event], data: st.DataObject) -> None:
    """Keep texts out of a dead letter's error, since errors are logged."""
    event = dict(GOOD[model])
    for name in data.draw(
        st.sets(st.sampled_from([*event, "item_id", "error", "response", "item", "part"]), min_size=1)
    ):
        if name != "type":
            event[name] = data.draw(marked_values)
    tenant = data.draw(st.sampled_from(["acme", MARKER * 1000]))
    bodies: list[Any] = [
        event,
        [event, event],
        json.dumps(event).encode()[:-3],
        json.dumps([event]).encode() + b"]",
    ]
    batch = batch_of(
        [entry(data.draw(st.sampled_from(bodies)), tenant=tenant)],
        TABLE,
        max_event_bytes=data.draw(st.sampled_from([1024, 16])),
    )
    assert MARKER not in _reported(batch.commit.dead_letters)


@given(st.sampled_from(list(GOOD)), st.data())
def test_no_error_shows_a_text_of_flat_fields(model: type[Event], data: st.DataObject) -> None:
    """Keep texts of flat fields out of a dead letter's error."""
    fields = {name.encode(): str(value).encode() for name, value in GOOD[model].items()}
    for name in data.draw(st.sets(st.sampled_from(list(fields)), min_size=1)):
        marked = [MARKER.encode(), b'{"' + MARKER.encode() + b'": 1', MARKER.encode() + b"\xff"]
        fields[name] = data.draw(st.sampled_from(marked))
    if data.draw(st.booleans()):
        del fields[b"type"]
    batch = batch_of([open_entry(b"1-0", fields)], TABLE)
    assert MARKER not in _reported(batch.commit.dead_letters)


@given(st.sampled_from(list(GOOD)), st.text(max_size=5), st.text(max_size=5))
def test_every_error_is_one_line(model: type[Event], name: str, value: str) -> None:
    """Write an error on one line. Otherwise a log or a table of dead letters would be broken up."""
    flat = {key.encode(): str(value).encode() for key, value in GOOD[model].items()}
    entries = [
        entry(GOOD[model] | {name: value}),
        open_entry(b"2000-0", flat | {name.encode(): b"\xff"}),
        open_entry(b"2001-0", {name.encode(): value.encode()}),
    ]
    batch = batch_of(entries, TABLE)
    assert all(len(letter.error.splitlines()) == 1 for _, letter in batch.commit.dead_letters)


@given(
    st.lists(st.sampled_from([DELTA, {"type": "new"}, {"type": 7}, 7, [], DELTA | {"delta": 7}]), max_size=6)
)
def test_every_event_is_an_effect_a_count_or_a_dead_letter(events: list[Any]) -> None:
    """Turn each event into an effect, a count or a dead letter. Otherwise an event would vanish."""
    commit = batch_of([entry(events)], TABLE).commit
    fragments = [
        fragment
        for response in commit.responses.values()
        for change in response.parts.values()
        for fragment in commit.fragments(change)
    ]
    counted = sum(map(len, commit.counts.values()))
    assert len(fragments) + counted + len(commit.dead_letters) == len(events)


# --------------------------------------------------------------------------------------------- rejected parts

TOO_LARGE = Unreadable("oversized", "too large")


def test_part_that_grows_too_large_loses_its_fragments() -> None:
    """Turn an oversized part's fragments into dead letters, and keep its closings and its neighbours."""
    done = {"type": "response.refusal.done", "refusal": "no", "output_index": 0, "content_index": 0}
    other = DELTA | {"content_index": 1}
    batch = batch_of([entry(DELTA), entry([other, DELTA, done], 1)], TABLE)
    batch.reject_parts({PART: TOO_LARGE})
    parts = batch.commit.responses[KEY].parts
    assert set(parts) == {PART, PART._replace(content_index=1)}
    assert (batch.commit.fragments(parts[PART]), parts[PART].entries) == ([], [])
    assert [closing.arrival for closing in parts[PART].closings] == [at(1, 2)]
    assert letters(batch) == [(0, "oversized", "too large"), (1, "oversized", "too large")]
    whole, alone = (fields_of(letter.entry) for _, letter in batch.commit.dead_letters)
    assert json.loads(whole["event"]) == DELTA
    assert json.loads(alone["event"]) == DELTA


def test_rejected_part_with_only_a_closing_is_left_out() -> None:
    """Drop the closing of a rejected part if it is all the part has.

    Otherwise the commit would be retried forever.
    """
    done = {"type": "response.refusal.done", "refusal": "no", "output_index": 0, "content_index": 0}
    batch = batch_of([entry(done)], TABLE)
    batch.reject_parts({PART: TOO_LARGE})
    assert batch.commit.responses[KEY].parts == {}
    assert letters(batch) == [(0, "oversized", "too large")]


def test_context_is_in_the_letter_of_a_closing() -> None:
    """Copy the context into the dead letter of one event, so that a replayed entry knows its response."""
    batch = batch_of([entry([DELTA, 7], tenant="acme")], TABLE)
    ((_, letter),) = batch.commit.dead_letters
    assert fields_of(letter.entry) == {"event": b"7", "response_id": b"resp_1", "tenant": b"acme"}


def test_a_handler_of_another_package_can_take_part() -> None:
    """Accept a handler of another package that closes parts of an enabled kind."""

    def close(_event: RefusalDelta, origin: Origin) -> Iterator[Effect]:
        yield Closing(PartKey(origin.stream_key(None), 0, 0, "reasoning"), Rank.DONE, "x")

    table = RoutingTable([Handler("own", (Route(RefusalDelta, close),)), BUILT_IN["reasoning"]])
    commit = batch_of([entry(DELTA)], table).commit
    assert list(commit.responses[KEY].parts) == [PART._replace(kind="reasoning")]
    assert ContextValues() == Origin(at()).context


def test_entries_for_the_fast_path_only_can_be_rejected() -> None:
    """Reject a part with an entry that only the fast path can decode.

    Otherwise its batch would fail forever.
    """
    body = json.dumps(DELTA)[:-1] + ', "padding": ' + "1" * 5000 + "}"
    first = entry(DELTA, 1)
    odd = first._replace(id=at(2).entry, fields={**first.fields, b"event": body.encode()}, body=body.encode())
    batch = batch_of([odd, first], TABLE)
    batch.reject_parts({PART: TOO_LARGE})
    assert letters(batch) == [(0, "oversized", "too large"), (1, "oversized", "too large")]


def test_duplicates_of_a_rejected_closing_are_rejected() -> None:
    """Make dead letters of omitted duplicates too.

    Otherwise an entry would be acknowledged without a trace.
    """
    done = {"type": "response.refusal.done", "refusal": "no", "output_index": 0, "content_index": 0}
    part = {"type": "refusal", "refusal": "no"}
    copy = {"type": "response.content_part.done", "output_index": 0, "content_index": 0, "part": part}
    batch = batch_of([entry(done), entry(copy, 1)], TABLE)
    (change,) = batch.commit.responses[KEY].parts.values()
    assert len(change.closings) == 1
    batch.reject_parts({PART: TOO_LARGE})
    assert letters(batch) == [(0, "oversized", "too large"), (1, "oversized", "too large")]


def test_closings_of_both_paths_are_in_order() -> None:
    """Sort closings of both paths by arrival.

    Otherwise the opened alert would have the text of a later entry.
    """
    place = {"output_index": 0, "content_index": 0}
    first, second = ({"type": "response.refusal.done", "refusal": text, **place} for text in ("a", "b"))
    batch = batch_of([entry([{"type": "odd", "delta": 5}, first]), entry([second, first], 1)], TABLE)
    (change,) = batch.commit.responses[KEY].parts.values()
    found = [(closing.arrival, closing.text) for closing in change.closings]
    assert found == [(at(0, 1), "a"), (at(1, 0), "b")]
    assert change.copies == [at(1, 1)]


def test_the_slow_path_sorts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sort a part once for a whole batch. Otherwise a FastStream producer's batch would take minutes."""
    sorts: list[int] = []
    put_in_order = PartChange.put_in_order

    def counted(change: PartChange) -> None:
        sorts.append(len(change.entries))
        put_in_order(change)

    monkeypatch.setattr(PartChange, "put_in_order", counted)
    halves = [DELTA | {"delta": "\ud83d", "sequence_number": n} for n in range(50)]
    (change,) = batch_of([entry(halves), entry(DELTA, 1)], TABLE).commit.responses[KEY].parts.values()
    assert sorts == [51]
    assert change.entries == [0] * 50 + [1]
    assert change.positions == [*range(50), 0]


# ----------------------------------------------------------------------------------------------------- limits


def by_models(entry: Entry) -> Entry:
    """Return the entry with another field before its event, which selects the slow path."""
    return entry._replace(fields={b"other": b"", **entry.fields})


READ = [pytest.param(lambda entry: entry, id="fast"), pytest.param(by_models, id="slow")]
Read = Callable[[Entry], Entry]


@pytest.mark.parametrize("read", READ)
def test_both_paths_are_tested(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    """Run the tests below through both paths."""
    calls: list[int] = []
    slow = Batch._read  # noqa: SLF001 - the slow path, to count its calls

    def counted(batch: Batch, index: int) -> None:
        calls.append(index)
        slow(batch, index)

    monkeypatch.setattr(Batch, "_read", counted)
    batch_of([read(entry(DELTA))], TABLE)
    assert len(calls) == (read is by_models)


def truncated(batch: Batch, key: StreamKey = KEY) -> tuple[set[str], dict[str, list[int]]]:
    """Return the names that a response lists as left out, and all counts of the batch."""
    names = context_of(batch.commit.responses[key].registers).truncated
    return set(names), batch.commit.counts


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("name", CONTEXT_NAMES)
def test_context_value_is_kept_up_to_its_limit(read: Read, name: str) -> None:
    """Store a value up to its limit; leave out and count a longer one."""
    for character in "xé":
        value = character * limits.CONTEXT[name]
        batch = batch_of([read(entry(DELTA, 0, "resp_1", **{name: value}))], TABLE)
        assert getattr(context_of(batch.commit.responses[KEY].registers), name) == value
        assert truncated(batch) == (set(), {})
        batch = batch_of([read(entry(DELTA, n, "resp_1", **{name: value + "x"})) for n in range(3)], TABLE)
        assert getattr(context_of(batch.commit.responses[KEY].registers), name) is None
        assert truncated(batch) == ({name}, {f"truncated:{name}": [0, 1, 2]})
        assert letters(batch) == []


@pytest.mark.parametrize("read", READ)
def test_response_id_beyond_its_limit_is_a_dead_letter(read: Read) -> None:
    """Refuse a longer response id. Otherwise a key could grow without limit or name another response."""
    longest = "r" * limits.ID
    assert list(batch_of([read(entry(DELTA, 0, longest))], TABLE).commit.responses) == [
        StreamKey("response", longest)
    ]
    batch = batch_of([read(entry(DELTA, 0, longest + "r"))], TABLE)
    assert letters(batch) == [(0, "invalid_event", "the field response_id has 1025 characters; at most 1024")]
    assert (batch.commit.responses, batch.commit.counts) == ({}, {})


@pytest.mark.parametrize("read", READ)
def test_item_id_beyond_its_limit_is_left_out(read: Read) -> None:
    """Leave out and count a longer item id, and keep its event."""
    longest = "i" * limits.ID
    batch = batch_of([read(entry(DELTA | {"item_id": longest}))], TABLE)
    assert (batch.commit.responses[KEY].parts[PART].item_id, *truncated(batch)) == (longest, set(), {})
    batch = batch_of([read(entry(DELTA | {"item_id": longest + "i"}, n)) for n in range(2)], TABLE)
    assert batch.commit.responses[KEY].parts[PART].item_id is None
    assert truncated(batch) == ({"item_id"}, {"truncated:item_id": [0, 1]})
    assert len(batch.commit.responses[KEY].parts[PART].entries) == 2


@pytest.mark.parametrize("read", READ)
def test_item_id_that_is_the_only_identity_is_a_dead_letter_beyond_its_limit(read: Read) -> None:
    """Refuse an event with only a longer item id. Otherwise it could join the texts of other items."""
    longest = "i" * limits.ID
    batch = batch_of([read(entry(DELTA | {"item_id": longest}, 0, None))], TABLE)
    assert list(batch.commit.responses) == [StreamKey("item", longest)]
    batch = batch_of([read(entry(DELTA | {"item_id": longest + "i"}, 0, None))], TABLE)
    ((_, reason, error),) = letters(batch)
    assert reason == "invalid_event"
    assert error.startswith("item_id has 1025 characters, at most 1024, and there is no response_id")
    assert (batch.commit.responses, batch.commit.counts) == ({}, {})


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("name", ["model", "safety_identifier"])
def test_learned_value_has_the_limit_of_a_name(read: Read, name: str) -> None:
    """Store learned names up to the limit; leave out and count longer ones."""
    longest = "m" * limits.NAME
    register = RegisterName(name, learned=True)
    batch = batch_of([read(entry({"type": "response.created", "response": {name: longest}}))], TABLE)
    assert batch.commit.responses[KEY].registers == {register: Register(EntryId(1000, 0), longest)}
    created = {"type": "response.created", "response": {name: longest + "m"}}
    batch = batch_of([read(entry(created))], TABLE)
    left_out = RegisterName(f"truncated:{name}", learned=True)
    assert set(batch.commit.responses[KEY].registers) == {left_out}
    assert truncated(batch) == ({name}, {f"truncated:{name}": [0]})


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize(
    ("name", "field", "most"),
    [
        ("reason", "reason", limits.REASON),
        ("provider_category", "category", limits.REASON),
        ("provider_explanation", "explanation", limits.EXPLANATION),
    ],
)
def test_words_of_an_end_are_kept_up_to_their_limit(read: Read, name: str, field: str, most: int) -> None:
    """Store an ending's reason, category and explanation up to their limits; leave out longer ones."""

    def ended(length: int) -> Batch:
        response = {"incomplete_details": {"reason": "r", field: "x" * length}}
        return batch_of([read(entry({"type": "response.incomplete", "response": response}))], TABLE)

    batch = ended(most)
    assert getattr(batch.commit.responses[KEY].endings[at()], name) == "x" * most
    assert truncated(batch) == (set(), {})
    batch = ended(most + 1)
    assert getattr(batch.commit.responses[KEY].endings[at()], name) is None
    assert truncated(batch) == ({name}, {f"truncated:{name}": [0]})


@pytest.mark.parametrize(("length", "kept"), [(limits.REASON, True), (limits.REASON + 1, False)])
def test_class_that_a_producer_gives_is_kept_up_to_its_limit(length: int, *, kept: bool) -> None:
    """Replace a longer class by the one derived from the reason. Otherwise a filter could raise no alert."""
    response = {"incomplete_details": {"reason": "content_filter", "reason_class": "c" * length}}
    batch = batch_of([entry({"type": "response.incomplete", "response": response})], TABLE)
    assert batch.commit.responses[KEY].endings[at()].reason_class == ("c" * length if kept else "safety")
    assert batch.commit.counts == ({} if kept else {"truncated:reason_class": [0]})


def test_item_id_of_a_final_copy_is_kept_up_to_its_limit() -> None:
    """Leave out the item id of a final copy beyond the limit, and keep its text."""

    def copied(length: int) -> Batch:
        content = [{"type": "refusal", "refusal": "no"}]
        output = [{"type": "message", "id": "i" * length, "content": content}]
        return batch_of([entry({"type": "response.completed", "response": {"output": output}})], TABLE)

    batch = copied(limits.ID)
    copies = batch.commit.responses[KEY].endings[at()].copies
    assert copies == (Copy("i" * limits.ID, 0, 0, "refusal", "no"),)
    batch = copied(limits.ID + 1)
    assert batch.commit.responses[KEY].endings[at()].copies == (Copy(None, 0, 0, "refusal", "no"),)
    assert truncated(batch) == ({"item_id"}, {"truncated:item_id": [0]})


# ------------------------------------------------------------------------------------------------------ notes

PLACE = {"output_index": 0, "content_index": 0}
DONE = {"type": "response.refusal.done", **PLACE}
SHA256 = "0a" * 32
FALLBACK = {"type": "deltaloom.response.fallback", "from_model": "a", "to_model": "b"}


def test_rare_values_are_stored_as_notes() -> None:
    """Store checksums, sources, redactions, losses and the first fallback as notes of their arrivals."""
    events: list[Any] = [
        DONE | {"text_sha256": SHA256, "text_bytes": 7},
        DONE | {"refusal": "no", "integrity_source": "producer"},
        {"type": "deltaloom.part.redacted", "kind": "refusal", **PLACE},
        {"type": "deltaloom.producer.loss", "dropped": 3},
        DONE | {"refusal": "other"},
        FALLBACK | {"trigger": "x" * 257},
        FALLBACK | {"to_model": "c"},
    ]
    response = batch_of([entry(events)], TABLE).commit.responses[KEY]
    assert response.notes == {
        at(0, 0): Note(Checksum(SHA256, 7)),
        at(0, 1): Note(source="producer"),
        at(0, 2): Note(redacted=True),
        at(0, 3): Note(loss=True),
        at(0, 5): Note(fallback=ModelChange("a", "b")),
    }
    assert response.effect_entries == {0}
    assert [closing.arrival.position for closing in response.parts[PART].closings] == [0, 1, 4]


def test_loss_is_that_of_the_response_it_names() -> None:
    """Assign a loss to the response that its event names if the entry names none."""
    batch = batch_of([entry({"type": "deltaloom.producer.loss", "response_id": "resp_2"}, 0, None)], TABLE)
    assert batch.commit.responses[StreamKey("response", "resp_2")].notes == {at(): Note(loss=True)}
    ((_, reason, error),) = letters(batch_of([entry({"type": "deltaloom.producer.loss"}, 0, None)], TABLE))
    assert reason == "invalid_event"
    assert error.endswith("have no response_id; publish it with the field response_id")


def test_loss_of_a_process_is_counted_by_its_type() -> None:
    """Count a report about responses that are not named, and its lost events, without a dead letter."""
    loss = {"type": "deltaloom.producer.loss", "scope": "process", "dropped": 7}
    batch = batch_of([entry(loss, 0, None)], TABLE)
    assert batch.commit.lost_events == {0: 7}
    assert letters(batch) == []
    assert not batch.commit.responses
    assert batch.commit.counts == {"type:deltaloom.producer.loss": [0]}


def test_redacted_parts_of_kinds_that_are_off_are_left_out() -> None:
    """Leave out redacted parts of disabled kinds."""
    table = RoutingTable([BUILT_IN["redacted"], BUILT_IN["reasoning"]])
    withheld = {"type": "deltaloom.part.redacted", **PLACE}
    batch = batch_of([entry([withheld | {"kind": "refusal"}, withheld | {"kind": "reasoning"}])], table)
    assert list(batch.commit.responses[KEY].parts) == [PART._replace(kind="reasoning")]


# --------------------------------------------------------------------------------------------- contradictions


def contradicted(*events: Any, text: str = "no") -> ModerationAlert | None:
    """Return the alert that these events raise for a part that is finished with `text`, or None."""
    batch = batch_of([entry(event, n, tenant="acme") for n, event in enumerate(events)], TABLE)
    stored = {RegisterName("model"): Register(EntryId(1, 0), "m-1")}
    batch.contradict(PART, Contradicted(text_digest(text), stored))
    return batch.commit.responses[KEY].parts[PART].contradicted


def test_first_contradicting_text_is_in_the_alert() -> None:
    """Put the first contradicting text into the alert, with its time and the response's context."""
    alert = contradicted(*(DONE | {"refusal": text} for text in ("no", "yes\ud83d", "maybe")))
    assert alert is not None
    assert (alert.type, alert.severity) == ("deltaloom.text.contradicted", "info")
    assert (alert.text, alert.raised_at) == ("yes\ufffd", time_of(1001))
    assert (alert.model, alert.tenant) == ("m-1", "acme")


def test_contradicting_alert_has_the_context_of_the_earliest_entry() -> None:
    """Take the value of a redelivered entry, which is earlier than the entry that gave the stored value."""
    batch = batch_of([entry(DONE | {"refusal": "yes"}, model="early")], TABLE)
    late = {RegisterName("model"): Register(EntryId(2**47, 0), "late")}
    batch.contradict(PART, Contradicted(text_digest("no"), late))
    alert = batch.commit.responses[KEY].parts[PART].contradicted
    assert alert is not None
    assert alert.model == "early"


def test_contradicting_checksum_raises_an_alert_without_a_text() -> None:
    """Raise an alert with an empty text if only a contradicting checksum is known."""
    alert = contradicted(DONE | {"text_sha256": SHA256})
    assert alert is not None
    assert alert.text == ""


def test_the_same_text_contradicts_nothing() -> None:
    """Raise no alert for a repeated text, a matching checksum or an empty text."""
    own = sha256(b"no").hexdigest().upper()
    assert contradicted(DONE | {"refusal": "no"}, DONE | {"text_sha256": own}, DONE | {"refusal": ""}) is None


def test_rejected_part_contradicts_nothing() -> None:
    """Ignore a contradiction of a part that was removed from the batch."""
    batch = batch_of([entry(DONE | {"refusal": "yes"})], TABLE)
    batch.reject_parts({PART: TOO_LARGE})
    batch.contradict(PART, Contradicted(text_digest("no"), {}))
    assert batch.commit.responses[KEY].parts == {}
