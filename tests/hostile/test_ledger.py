"""Test that the ledger finds each hostile entry with a wrong result, and reports none otherwise."""

from __future__ import annotations

from collections import Counter

import pytest

from hostile.entry import ANY, REFUSED, USED, Entry
from hostile.ledger import Ledger, Place

PLACE = Place("deltaloom:deltas", "1-0")


class Case:
    """A ledger with one entry of 100 bytes and two events."""

    def __init__(self, ends: frozenset[str]) -> None:
        self.violations: Counter[str] = Counter()
        self.examples: list[str] = []
        self.ledger = Ledger(self._violate)
        self.ledger.sent("big-arrays", PLACE, Entry({b"event": b"x" * 95}, 2, ends))

    def _violate(self, kind: str, example: str, _sort: str) -> None:
        self.violations[kind] += 1
        self.examples.append(example)

    def end(self) -> Counter[str]:
        """Return the violations with limits of 8 bytes per byte and 100 per event: 1,000 bytes."""
        self.ledger.end(per_byte=8, per_event=100)
        return self.violations


@pytest.mark.parametrize("ends", [ANY, REFUSED])
def test_an_allowed_dead_letter_is_accepted(ends: frozenset[str]) -> None:
    """Accept an expected dead letter, and add it to the account."""
    case = Case(ends)
    case.ledger.letter(PLACE, 400)
    case.ledger.letter(PLACE, 400)
    assert not case.end()
    account = case.ledger.accounts["big-arrays"]
    assert (account.entries, account.events, account.bytes, account.letters, account.stored) == (
        1,
        2,
        100,
        2,
        800,
    )


@pytest.mark.parametrize("ends", [ANY, USED])
def test_a_missing_dead_letter_is_accepted(ends: frozenset[str]) -> None:
    """Accept an entry without a dead letter."""
    assert not Case(ends).end()


def test_a_lost_entry_is_found() -> None:
    """Report an entry that must become a dead letter and did not."""
    assert Case(REFUSED).end() == {"lost entry": 1}


def test_a_dead_letter_of_a_valid_entry_is_found() -> None:
    """Report a dead letter of an entry that must be processed."""
    case = Case(USED)
    case.ledger.letter(PLACE, 10)
    assert case.end() == {"unknown dead letter": 1}


def test_a_dead_letter_of_an_honest_entry_is_found() -> None:
    """Report a dead letter of an unknown entry, since honest entries are valid."""
    case = Case(ANY)
    case.ledger.letter(Place("deltaloom:deltas", "2-0"), 10)
    assert case.end() == {"unknown dead letter": 1}


def test_letters_of_one_entry_that_are_too_large() -> None:
    """Report too many bytes for one entry, even if the generator's other entries store little."""
    case = Case(ANY)
    for number in range(2, 100):
        case.ledger.sent("big-arrays", Place(PLACE.stream, f"{number}-0"), Entry({b"event": b"x" * 95}, 2))
    case.ledger.letter(PLACE, 1001)
    assert case.end() == {"stored too much": 1}
    assert case.examples == [
        "big-arrays: 1,001 bytes of dead letters for one entry of 100 bytes in 2 events; at most 1,000"
    ]


def test_outputs_and_keys_count_too() -> None:
    """Add outputs and the largest observed size of keys."""
    case = Case(ANY)
    case.ledger.output("big-arrays", 500)
    case.ledger.keys(Counter({"big-arrays": 501}))
    case.ledger.keys(Counter({"big-arrays": 100}))
    assert case.end() == {"stored too much": 1}


def test_outputs_within_the_limit() -> None:
    """Accept exactly the maximum."""
    case = Case(ANY)
    case.ledger.output("big-arrays", 500)
    case.ledger.keys(Counter({"big-arrays": 500}))
    assert not case.end()
