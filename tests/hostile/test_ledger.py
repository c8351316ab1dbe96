"""The ledger finds each hostile entry that came out as it must not, and nothing where all is well."""

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
        """Return what is wrong, where 8 bytes a byte and 100 an event may be stored: 1,000."""
        self.ledger.end(per_byte=8, per_event=100)
        return self.violations


@pytest.mark.parametrize("ends", [ANY, REFUSED])
def test_a_dead_letter_where_one_may_be(ends: frozenset[str]) -> None:
    """Nothing is wrong, and the account has it."""
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
def test_no_dead_letter_where_none_must_be(ends: frozenset[str]) -> None:
    """It ended as a count or an effect."""
    assert not Case(ends).end()


def test_an_entry_that_vanished() -> None:
    """It can only end as a dead letter, and there is none."""
    assert Case(REFUSED).end() == {"lost entry": 1}


def test_a_dead_letter_of_what_can_be_handled() -> None:
    """It should have had an effect."""
    case = Case(USED)
    case.ledger.letter(PLACE, 10)
    assert case.end() == {"unknown dead letter": 1}


def test_a_dead_letter_of_an_entry_that_nobody_hostile_sent() -> None:
    """It is an honest one, and honest entries are sound."""
    case = Case(ANY)
    case.ledger.letter(Place("deltaloom:deltas", "2-0"), 10)
    assert case.end() == {"unknown dead letter": 1}


def test_letters_of_one_entry_that_are_too_large() -> None:
    """Also where others of the generator store little."""
    case = Case(ANY)
    for number in range(2, 100):
        case.ledger.sent("big-arrays", Place(PLACE.stream, f"{number}-0"), Entry({b"event": b"x" * 95}, 2))
    case.ledger.letter(PLACE, 1001)
    assert case.end() == {"stored too much": 1}
    assert case.examples == [
        "big-arrays: 1,001 bytes of dead letters for one entry of 100 bytes in 2 events; at most 1,000"
    ]


def test_outputs_and_keys_count_too() -> None:
    """Of the keys the most that there was at once."""
    case = Case(ANY)
    case.ledger.output("big-arrays", 500)
    case.ledger.keys(Counter({"big-arrays": 501}))
    case.ledger.keys(Counter({"big-arrays": 100}))
    assert case.end() == {"stored too much": 1}


def test_outputs_within_the_limit() -> None:
    """Exactly as much as may be."""
    case = Case(ANY)
    case.ledger.output("big-arrays", 500)
    case.ledger.keys(Counter({"big-arrays": 500}))
    assert not case.end()
