"""Assemble a text from its state: a set of numbered fragments, in any order and with any repeats.

Rules for order and repeats, from the Responses API's `sequence_number` and its use by real servers:

1. Two fragments with the same arrival are one: a redelivered entry changes nothing.
2. The numbers decide if every fragment has one, and no number has two different deltas. Then the fragments
   are joined in the order of their numbers, and a second fragment with the same number is a repeat (a
   producer's retry stores an event twice).
3. In any other case the fragments are joined in the order of their arrivals, and none counts as a repeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from handlers.core.text import repair, utf16_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from handlers.core.effects import Rank
    from handlers.core.identity import Arrival


class StoredFragment(NamedTuple):
    """A fragment as stored in its part's log."""

    arrival: Arrival
    sequence_number: int | None
    delta: str


class StoredClosing(NamedTuple):
    """A closing as stored in its part's log; the text is empty if the event gave none."""

    arrival: Arrival
    rank: Rank
    text: str


class FragmentColumns(NamedTuple):
    """Fragments in the order of their arrivals, one column for each property."""

    milliseconds: list[int]
    """Milliseconds of each fragment's entry id; `seqs` has the second half."""
    seqs: list[int]
    numbers: list[int | None]
    deltas: list[str]
    positions: list[int] | None = None
    """Position of each fragment in its entry's array; None if all are 0."""

    @property
    def first_number(self) -> int | None:
        """First sequence number, if each number is one more than the previous one.

        None if they are not consecutive, if a fragment has no number, or if there is no fragment.
        """
        start = self.numbers[0] if self.numbers else None
        if start is None or self.numbers != [*range(start, start + len(self.numbers))]:
            return None
        return start


class Assembly(NamedTuple):
    """A text joined from fragments."""

    text: str
    delta_count: int
    """Number of joined fragments, without repeats."""
    duplicate_count: int
    """Number of fragments left out because an earlier one has their sequence number (rule 2).

    A second fragment with the same arrival is not counted at all.
    """
    first_sequence_number: int | None
    """Number of the fragment that was joined first; None without fragments, or if it has no number."""
    last_sequence_number: int | None
    """Number of the fragment that was joined last; None without fragments, or if it has no number."""
    numbered: bool = True
    """True if sequence numbers decided the order (rule 2), so that a further repeat cannot change the text.

    Also true without fragments.
    """


def assemble(fragments: Iterable[StoredFragment]) -> Assembly:
    """Join fragments by the rules of this module; they may come in any order and with any repeats.

    The text is repaired: lone surrogates become U+FFFD. Without fragments, it is empty.
    """
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
    """Return the fragments' distinct arrivals, sorted, and a UTF-16 length for each of them.

    The length is that of the text that `assemble` joins from this fragment and all earlier ones. Fragments
    that it leaves out as repeats do not count.
    """
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
    """Return the fragments in the order of their numbers, and of each number only the first to arrive.

    `arrived` is sorted by arrival. Return None if a fragment has no number, or if a number has two different
    deltas.
    """
    by_number: dict[int, StoredFragment] = {}
    for fragment in arrived:
        number = fragment.sequence_number
        if number is None:
            return None
        if by_number.setdefault(number, fragment).delta != fragment.delta:
            return None
    return [by_number[number] for number in sorted(by_number)]
