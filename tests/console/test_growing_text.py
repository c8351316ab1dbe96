"""Tests of the newest words of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from console.growing_text import KEPT, GrowingText
from handlers.core.assembly import StoredFragment, assemble
from handlers.core.identity import Arrival

if TYPE_CHECKING:
    from collections.abc import Sequence


def fragments_of(numbered: Sequence[tuple[int | None, str]]) -> list[StoredFragment]:
    """Return fragments in the order of their arrivals."""
    return [StoredFragment(Arrival.at(1, at, 0), number, text) for at, (number, text) in enumerate(numbered)]


@example([(2, ""), (1, "\ud83d"), (3, "\ude00")], [2])
@given(
    st.lists(st.tuples(st.none() | st.integers(1, 8), st.text("ab\ud83d\ude00é", max_size=3)), max_size=12),
    st.lists(st.integers(1, 4), max_size=12),
)
def test_it_is_what_a_worker_assembles(numbered: list[tuple[int | None, str]], cuts: list[int]) -> None:
    """Late, repeated and unnumbered deltas give the worker's text, however they are cut into batches."""
    fragments = fragments_of(numbered)
    text, at = GrowingText(), 0
    for size in [*cuts, len(fragments) + 1]:
        text.add(fragments[at : at + size])
        at += size
    assert text.end(KEPT) == assemble(fragments).text


def test_it_is_bounded() -> None:
    """A text of any length keeps some characters, its length, and its end."""
    text = GrowingText()
    for number in range(3000):
        text.add([StoredFragment(Arrival.at(number, 0, 0), number, f"{number:>99} ")])
    assert text.length == 300_000
    assert text.end(10) == "     2999 "
    assert len(text.end(text.length)) <= 2 * KEPT
    text.close("x" * 10_000_000 + "end")
    text.add([StoredFragment(Arrival.at(9999, 0, 0), 9999, "late")])
    assert (text.length, text.end(4)) == (10_000_003, "xend")
