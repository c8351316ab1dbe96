"""Test that output depends on the input stream alone, not on batches, workers, order or repeats.

All properties run the whole pure chain: JSON, routing, handlers, chunks of the stored logs, resolving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import BUILT_IN
from handlers.core.effects import CONTEXT_NAMES
from handlers.core.identity import EntryId
from handlers.core.response import resolve
from handlers.core.routing import RoutingTable
from handlers.core.state import LowWater
from tests.service.pipeline.model import ALL_STORED, StoredSet, batch_of
from tests.strategies import (
    Expected,
    Json,
    PlannedResponse,
    cut_into_entries,
    entry_of,
    responses,
    unruly_events,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaloom.messages import AssembledText
    from handlers.core.identity import PartKey
    from handlers.core.response import Resolution
    from handlers.core.state import ResponseState
    from service.ports.storage import Entry

pytestmark = pytest.mark.timeout(300)

TABLE = RoutingTable(BUILT_IN.values())
_OTHER: Json = {"type": "response.refusal.delta", "delta": "x", "output_index": 1, "content_index": 0}


def _expected(text: AssembledText) -> Expected:
    return Expected(
        text.text,
        text.status,
        text.reason,
        text.integrity,
        text.delta_count,
        text.integrity_source,
        text.reason_class,
    )


def _comparable(written: dict[PartKey, AssembledText], *without: str) -> dict[PartKey, dict[str, Any]]:
    """Return all fields of each text except `without`."""
    return {part: text.model_dump(exclude=set(without)) for part, text in written.items()}


def _one_by_one(entries: Sequence[Entry]) -> StoredSet:
    """Return the set after one worker has processed entry by entry, and settled after each."""
    stored = StoredSet()
    for entry in entries:
        stored.process([entry], TABLE, ALL_STORED)
    return stored


@st.composite
def planned(
    draw: st.DrawFn, *, repeats: bool = True, losses: bool = True
) -> tuple[PlannedResponse, list[Entry]]:
    """Draw a response and its entries."""
    plan = draw(responses(repeats=repeats, losses=losses))
    return plan, draw(cut_into_entries(plan))


@given(planned())
def test_one_worker_gives_what_was_planned(planned: tuple[PlannedResponse, list[Entry]]) -> None:
    """Produce the planned text, status, integrity and counts."""
    plan, entries = planned
    stored = _one_by_one(entries)
    assert {part: _expected(text) for part, text in stored.written.items()} == plan.expected
    assert stored.contradicted == plan.contradicted


@given(planned(), st.data())
def test_any_order_and_any_batches_make_the_same_set(
    planned: tuple[PlannedResponse, list[Entry]], data: st.DataObject
) -> None:
    """Give one result for any order of entries, any repeats and any cuts between batches.

    Within a batch, entries are in stream order, as Redis delivers them. The set is settled at the end.
    """
    _, entries = planned
    again = data.draw(st.lists(st.sampled_from(entries), max_size=4), label="again")
    schedule = data.draw(st.permutations([*entries, *again]), label="schedule")
    stored = StoredSet()
    while schedule:
        size = data.draw(st.integers(1, len(schedule)), label="size")
        batch = {entry.id: entry for entry in schedule[:size]}
        stored.commit(batch_of([batch[at] for at in sorted(batch)], TABLE).commit)
        schedule = schedule[size:]
    stored.settle_all(list(stored.responses), ALL_STORED)
    expected = _one_by_one(entries)
    assert _comparable(stored.written) == _comparable(expected.written)
    assert stored.contradicted == expected.contradicted


def test_context_after_the_closing_is_ignored() -> None:
    """Ignore context after the closing.

    Otherwise a text's tenant would depend on the cuts between batches.
    """
    place: Json = {"output_index": 0, "content_index": 0}
    first = entry_of([{"type": "response.refusal.done", "refusal": "no", **place}], EntryId(1, 0), "resp_1")
    second = entry_of([_OTHER], EntryId(2, 0), "resp_1", tenant="acme")
    together = StoredSet()
    together.process([first, second], TABLE, ALL_STORED)
    assert _comparable(together.written) == _comparable(_one_by_one([first, second]).written)


class _Workers:
    """Several workers on one stream, scheduled by hypothesis, with a simulated list of pending entries."""

    def __init__(self, entries: Sequence[Entry], data: st.DataObject, *, may_stall: bool) -> None:
        self.stored = StoredSet()
        self._unread = list(entries)
        self._data = data
        self._may_stall = may_stall
        self._delivered: list[EntryId] = []
        self._pending: dict[EntryId, Entry] = {}
        self._in_hand: list[list[Entry]] = []
        self._found: list[tuple[ResponseState, Resolution]] = []

    def _up_to(self, most: int) -> int:
        return self._data.draw(st.integers(1, most))

    def read(self) -> None:
        """Let a worker read the next entries."""
        size = self._up_to(4)
        taken, self._unread = self._unread[:size], self._unread[size:]
        self._pending |= {entry.id: entry for entry in taken}
        self._delivered += [entry.id for entry in taken]
        self._in_hand.append(taken)

    def claim(self) -> None:
        """Let a worker claim the oldest pending entries, while their former owner may still process them."""
        self._in_hand.append([self._pending[at] for at in sorted(self._pending)[: self._up_to(3)]])

    def commit(self) -> None:
        """Let a worker commit and acknowledge a batch, and then look for finished parts."""
        entries = self._in_hand.pop(self._up_to(len(self._in_hand)) - 1)
        self.stored.commit(batch_of(entries, TABLE).commit)
        for entry in entries:
            self._pending.pop(entry.id, None)
        self.look()

    def look(self) -> None:
        """Let a worker read the low-water mark, and then the stored state."""
        low_water = LowWater(max(self._delivered)._replace(seq=2**32))
        if self._pending:
            stalled = self._may_stall and self._data.draw(st.booleans())
            low_water = LowWater(min(self._pending), stalled)
        for key in list(self.stored.responses):
            state = self.stored.state(key)
            self._found.append((state, resolve(state, low_water)))

    def settle(self) -> None:
        """Let a worker write its findings, possibly long after it looked."""
        self.stored.settle(*self._found.pop(self._up_to(len(self._found)) - 1))

    def run(self) -> StoredSet:
        """Move the workers in any order until all work is done."""
        while self._unread or self._in_hand:
            moves = [self.read] if self._unread else []
            moves += [self.claim] if self._pending and len(self._in_hand) < 4 else []
            moves += [self.commit, self.commit] if self._in_hand else []
            moves += [self.settle] if self._found else []
            self._data.draw(st.sampled_from(moves))()
        self.look()
        while self._found:
            self.settle()
        return self.stored


@settings(max_examples=300)
@given(planned(), st.data())
def test_any_number_of_workers_gives_the_same_texts(
    planned: tuple[PlannedResponse, list[Entry]], data: st.DataObject
) -> None:
    """Give the same texts with any number of workers as with one."""
    _, entries = planned
    stored, expected = _Workers(entries, data, may_stall=False).run(), _one_by_one(entries)
    assert _comparable(stored.written) == _comparable(expected.written)
    assert stored.contradicted == expected.contradicted


@settings(max_examples=300)
@given(unruly_events(), st.data())
def test_any_number_of_workers_gives_the_same_texts_of_any_stream(
    events: list[Json], data: st.DataObject
) -> None:
    """Give the same result for streams that no correct server sends."""
    plan = PlannedResponse("resp_1", events)
    entries = data.draw(cut_into_entries(plan, coalesce=2))
    stored, expected = _Workers(entries, data, may_stall=False).run(), _one_by_one(entries)
    assert _comparable(stored.written) == _comparable(expected.written)
    assert stored.contradicted == expected.contradicted


def test_a_delta_after_the_end_does_not_remove_its_texts() -> None:
    """Keep the texts of a final copy that a delta follows in the same batch."""
    copy = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    events: list[Json] = [{"type": "response.completed", "response": {"output": [copy]}}, _OTHER]
    entries = [entry_of([event], EntryId(1, number), "resp_1") for number, event in enumerate(events)]
    together = StoredSet()
    together.process(entries, TABLE, ALL_STORED)
    assert _comparable(together.written) == _comparable(_one_by_one(entries).written)


@given(planned(losses=False), st.data())
def test_a_stuck_worker_changes_no_text(
    planned: tuple[PlannedResponse, list[Entry]], data: st.DataObject
) -> None:
    """Give the same texts when a stuck worker is not waited for.

    The stuck worker's entries are then late: its repeats are not counted, its earlier closings set neither
    the time nor the source, and the losses that it reports have no effect.
    """
    plan, entries = planned
    stored = _Workers(entries, data, may_stall=True).run()
    texts = {part: _expected(text)._replace(integrity_source=None) for part, text in stored.written.items()}
    assert texts == {part: what._replace(integrity_source=None) for part, what in plan.expected.items()}
    assert stored.contradicted == plan.contradicted


@given(responses(), st.data())
def test_the_same_events_in_other_entries(plan: PlannedResponse, data: st.DataObject) -> None:
    """Give the same texts for any cuts between a response's entries."""
    first = _one_by_one(data.draw(cut_into_entries(plan, coalesce=1)))
    second = _one_by_one(data.draw(cut_into_entries(plan, coalesce=40)))
    by_entry = (
        "started_at",
        "finished_at",
        *CONTEXT_NAMES,
        "context_truncated",
    )  # these depend on the entries
    assert _comparable(first.written, *by_entry) == _comparable(second.written, *by_entry)
    assert first.contradicted == second.contradicted


@settings(max_examples=500)
@given(unruly_events(), st.sampled_from(["resp_1", None]), st.data())
def test_any_events_in_other_entries(
    events: list[Json], response_id: str | None, data: st.DataObject
) -> None:
    """Give the same texts for any events and any cuts between entries."""
    plan = PlannedResponse(response_id, events)
    first = _one_by_one(data.draw(cut_into_entries(plan, coalesce=1)))
    second = _one_by_one(data.draw(cut_into_entries(plan, coalesce=8)))
    by_entry = ("started_at", "finished_at", "item_id", *CONTEXT_NAMES, "context_truncated")
    assert _comparable(first.written, *by_entry) == _comparable(second.written, *by_entry)
    assert first.contradicted == second.contradicted


@given(responses(), responses(by_item=False), st.data())
def test_responses_do_not_touch_each_other(
    one: PlannedResponse, other: PlannedResponse, data: st.DataObject
) -> None:
    """Keep the texts of two responses on one stream apart."""
    other.response_id = "another"
    turns = data.draw(st.permutations([0] * len(one.events) + [1] * len(other.events)), label="turns")
    plans, rest = (one, other), (iter(one.events), iter(other.events))
    entries = [
        entry_of([next(rest[turn])], EntryId(1_700_000_000_000, number), plans[turn].response_id)
        for number, turn in enumerate(turns)
    ]
    texts = [_expected(text) for text in _one_by_one(entries).written.values()]
    planned = [*one.expected.values(), *other.expected.values()]
    assert sorted(texts, key=repr) == sorted(planned, key=repr)
