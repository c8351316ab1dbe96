"""The state of a text is a set: numbered fragments, without order of arrival and without repeats.

Order and repeats, after the rules of the Responses API's `sequence_number` and what servers make of it:

- The same arrival is always one fragment: an entry that is delivered twice changes nothing.
- If every fragment has a sequence number and no number names two different deltas, the numbers give
  the order, and the same number again is a repeat: a producer's retry stores an event twice.
- Otherwise (no numbers, or the same for all) the order is that of arrival, and nothing is a repeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from handlers.core.text import repair, utf16_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from handlers.core.effects import Rank
    from handlers.core.identity import Arrival


class StoredFragment(NamedTuple):
    """A fragment of a known part."""

    arrival: Arrival
    sequence_number: int | None
    delta: str


class StoredClosing(NamedTuple):
    """A closing of a known part."""

    arrival: Arrival
    rank: Rank
    text: str


class Assembly(NamedTuple):
    """Fragments, joined."""

    text: str
    delta_count: int
    duplicate_count: int
    first_sequence_number: int | None
    last_sequence_number: int | None
    numbered: bool = True
    """Whether numbers told order and repeats: then a repeat that is still to come changes no text."""


def assemble(fragments: Iterable[StoredFragment]) -> Assembly:
    """Join a set of fragments, given in any order and any number of times."""
    arrived = sorted({fragment.arrival: fragment for fragment in fragments}.values())
    numbered = _by_number(arrived)
    ordered = arrived if numbered is None else numbered
    return Assembly(
        text=repair("".join([fragment.delta for fragment in ordered])),
        delta_count=len(ordered),
        duplicate_count=len(arrived) - len(ordered),
        first_sequence_number=ordered[0].sequence_number if ordered else None,
        last_sequence_number=ordered[-1].sequence_number if ordered else None,
        numbered=numbered is not None,
    )


def lengths_of(fragments: Iterable[StoredFragment]) -> tuple[list[Arrival], list[int]]:
    """Return the arrivals of fragments, and the UTF-16 units of the text that is assembled until each."""
    arrived = sorted({fragment.arrival: fragment for fragment in fragments}.values())
    lengths, by_number = [], dict[int, str]()
    numbered, distinct, all_units = True, 0, 0
    for _, number, delta in arrived:
        units = utf16_length(delta)
        all_units += units
        if number is None or by_number.get(number, delta) != delta:
            numbered = False
        elif number not in by_number:
            by_number[number] = delta
            distinct += units
        lengths.append(distinct if numbered else all_units)
    return [fragment.arrival for fragment in arrived], lengths


def _by_number(arrived: list[StoredFragment]) -> list[StoredFragment] | None:
    """Distinct fragments by sequence number; None where the numbers cannot be trusted."""
    by_number: dict[int, StoredFragment] = {}
    for fragment in arrived:
        number = fragment.sequence_number
        if number is None:
            return None
        if by_number.setdefault(number, fragment).delta != fragment.delta:
            return None
    return [by_number[number] for number in sorted(by_number)]
