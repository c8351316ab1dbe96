"""Test that a settlement costs the sum of parts, copies and endings, not a product.

Costs are counted in lines of Python, so that the load of the machine does not matter.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from handlers.core.assembly import StoredClosing, StoredFragment
from handlers.core.effects import Copy, Ending, Note, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.response import resolve
from handlers.core.state import LowWater, ResponseState
from handlers.core.text import text_digest
from tests.strategies import log_of

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = StreamKey("response", "resp_1")
ALL_STORED = LowWater(EntryId(10**9, 0))
N = 40


def at(ms: int) -> Arrival:
    """Return the arrival of an event at this time, in milliseconds."""
    return Arrival(EntryId(ms, 0), 0)


def part(index: int, output_index: int = 0) -> PartKey:
    """Return the key of a refusal."""
    return PartKey(KEY, output_index, index, "refusal")


def copies(n: int, prefix: str = "copy") -> tuple[Copy, ...]:
    """Return n texts of a final copy."""
    return tuple(Copy(f"it_{i}", 0, i, "refusal", f"{prefix} {i}") for i in range(n))


def spoken(n: int) -> dict[PartKey, Any]:
    """Return n open parts with a delta."""
    return {part(i): log_of([StoredFragment(at(i + 1), i, f"open {i}")], item_id=f"it_{i}") for i in range(n)}


def whole(n: int, rank: Rank, ms: Callable[[int], int] = lambda i: 2000 + i) -> dict[PartKey, Any]:
    """Return n open parts with a closing and no delta."""
    return {part(1000 + i): log_of([], [StoredClosing(at(ms(i)), rank, f"open {i}")]) for i in range(n)}


def ending(n: int, output_index: int | None = None) -> Ending:
    """Return an ending with n copies."""
    return Ending(KEY, output_index, "completed", None, copies(n))


STATES: dict[str, Callable[[int], ResponseState]] = {
    "copies, open parts": lambda n: ResponseState(KEY, {}, {at(5000): ending(8 * n)}, spoken(n)),
    "copies, finished parts": lambda n: ResponseState(
        KEY, {}, {at(5000): ending(8 * n)}, {}, {part(i): text_digest(f"other {i}") for i in range(n)}
    ),
    "copies that nothing else has": lambda n: ResponseState(KEY, {}, {at(5000): ending(8 * n)}),
    "ends, open parts": lambda n: ResponseState(
        KEY, {}, {at(5000 + i): ending(0) for i in range(8 * n)}, spoken(n)
    ),
    "ends, finished parts": lambda n: ResponseState(
        KEY,
        {},
        {at(5000 + i): ending(1) for i in range(8 * n)},
        {},
        {part(i): text_digest(f"other {i}") for i in range(n)},
    ),
    "ends of the item, silent parts": lambda n: ResponseState(
        KEY,
        {},
        {at(5000 + i): ending(0, 0) for i in range(8 * n)},
        {part(i): log_of([StoredFragment(at(i + 1), i, "")]) for i in range(n)},
    ),
    "losses, open parts": lambda n: ResponseState(
        KEY,
        {},
        {at(9000): ending(0)},
        spoken(n),
        {},
        {at(i): Note(loss=True) for i in range(8 * n)},
    ),
    "announced, ends": lambda n: ResponseState(
        KEY,
        {},
        {at(5000 + i): ending(0) for i in range(n)},
        {},
        {},
        {at(i): Note(announced=copies(1, str(i))) for i in range(8 * n)},
    ),
    "copies at other places": lambda n: ResponseState(
        KEY,
        {},
        {
            at(2000): Ending(
                KEY, 0, "completed", None, tuple(Copy(None, 0, 1000 + i, "refusal", "") for i in range(n))
            )
        },
        {**spoken(n), **whole(n, Rank.OUTPUT_ITEM, lambda _: 2000)},
    ),
    "copies of the same words": lambda n: ResponseState(
        KEY, {}, {}, {part(i): log_of([], [StoredClosing(at(i), Rank.DONE, "No.")]) for i in range(n)}
    ),
    "copies of the same words in one end": lambda n: ResponseState(
        KEY,
        {},
        {
            at(2000): Ending(
                KEY, 0, "completed", None, tuple(Copy(None, 0, i, "refusal", "") for i in range(8 * n))
            )
        },
        {part(i): log_of([], [StoredClosing(at(2000), Rank.OUTPUT_ITEM, "No.")]) for i in range(n)},
    ),
    "whole texts, finished parts": lambda n: ResponseState(
        KEY, {}, {}, whole(n, Rank.DONE), {part(i): text_digest(f"open {i}") for i in range(n)}
    ),
}


def steps(state: ResponseState) -> int:
    """Return the number of lines that settling a response executes."""
    count = 0

    def trace(_frame: object, event: str, _arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        resolve(state, ALL_STORED)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("case", STATES)
def test_cost_grows_with_the_sum(case: str) -> None:
    """Multiply the cost by less than five for four times the size.

    Otherwise a response could block a worker.
    """
    once, four_times = (steps(STATES[case](n)) for n in (N, 4 * N))
    assert four_times < 5 * once
