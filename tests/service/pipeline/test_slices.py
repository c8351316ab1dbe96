"""Test how settlements are split into calls of limited size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from service.pipeline.slices import calls_of
from service.ports.storage import CopyToDrop, ResponseOutcome, Settlement

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY = StreamKey("response", "resp_1")
ENDING = Arrival(EntryId(9, 0), 0)
OUTCOME = ResponseOutcome(9, [("model", "m-1")], [])


def parts(count: int) -> list[PartKey]:
    """Return this many parts of one response."""
    return [PartKey(KEY, index, 0, "refusal") for index in range(count)]


def settlement(closed: Iterable[PartKey]) -> Settlement:
    """Return a settlement that ends a response and drops copies."""
    drops = [CopyToDrop(part, 10, 0) for part in closed]
    return Settlement(KEY, 1, drops, [ENDING], None, ended=True, outcome=OUTCOME)


def test_without_settlements_there_is_no_call() -> None:
    """Yield no call, rather than an empty one, which would cost a round trip."""
    assert list(calls_of([])) == []


def test_many_parts_are_split_and_the_last_piece_ends_the_response() -> None:
    """Split a response of many parts in order; only the last piece has the endings and the outcome."""
    every = parts(250)
    calls = list(calls_of([settlement(every)]))
    pieces = [piece for call in calls for piece in call]
    assert [each.part for piece in pieces for each in piece.closed] == every
    assert all(len(piece.closed) <= 100 for piece in pieces)
    assert len(calls) == len(pieces) == 3
    *first, last = pieces
    for piece in first:
        assert piece.partial
        assert not piece.ended
        assert (piece.applied_endings, piece.outcome, piece.contradictions) == ((), None, {})
    assert not last.partial
    assert last.ended
    assert (last.applied_endings, last.outcome) == ([ENDING], OUTCOME)
    assert [*last.earlier, *(each.part for each in last.closed)] == every


def test_small_settlements_share_calls() -> None:
    """Put settlements into one call until it has 100 items, and keep their order."""
    given = [settlement(parts(1)) for _ in range(120)]
    calls = list(calls_of(given))
    assert [piece for call in calls for piece in call] == given
    assert len(calls) == 3
