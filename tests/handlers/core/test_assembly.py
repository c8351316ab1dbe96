"""Test how a part's text is assembled from its set of fragments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core.assembly import Assembly, StoredFragment, assemble
from handlers.core.identity import Arrival, EntryId
from tests.strategies import fragment_sets


def _fragments(*rows: tuple[int, int | None, str]) -> list[StoredFragment]:
    """Return fragments of these rows: entry time in milliseconds, sequence number, delta."""
    return [StoredFragment(Arrival(EntryId(ms, 0), 0), number, delta) for ms, number, delta in rows]


@pytest.mark.parametrize(
    ("fragments", "assembly"),
    [
        ([], Assembly("", 0, 0, None, None)),
        (_fragments((1, 4, "a"), (2, 6, "b")), Assembly("ab", 2, 0, 4, 6)),
        (_fragments((1, 6, "b"), (2, 4, "a")), Assembly("ab", 2, 0, 4, 6)),
        (_fragments((1, 4, "a"), (2, 4, "a"), (3, 5, "b")), Assembly("ab", 2, 1, 4, 5)),
        (_fragments((2, None, "b"), (1, None, "a")), Assembly("ab", 2, 0, None, None, numbered=False)),
        (_fragments((1, None, "a"), (2, None, "a")), Assembly("aa", 2, 0, None, None, numbered=False)),
        (_fragments((1, 0, "a"), (2, 0, "b"), (3, 0, "a")), Assembly("aba", 3, 0, 0, 0, numbered=False)),
        (_fragments((1, 9, "a"), (2, 1, "b"), (3, 9, "c")), Assembly("abc", 3, 0, 9, 9, numbered=False)),
        (_fragments((1, 9, "a"), (2, None, "b"), (3, 1, "c")), Assembly("abc", 3, 0, 9, 1, numbered=False)),
        (_fragments((1, -1, "a"), (2, 2**63 - 1, "b")), Assembly("ab", 2, 0, -1, 2**63 - 1)),
        (_fragments((1, 2, ""), (2, 3, "b")), Assembly("b", 2, 0, 2, 3)),
    ],
    ids=[
        "nothing",
        "by number",
        "late arrival",
        "a producer's retry",
        "no numbers: by arrival",
        "no numbers: nothing is a repeat",
        "constant number: by arrival, nothing is a repeat",
        "one number for two deltas: numbers are not to be trusted",
        "one without a number: by arrival",
        "gaps, and the largest numbers",
        "an empty delta counts",
    ],
)
def test_order_and_repeats(fragments: list[StoredFragment], assembly: Assembly) -> None:
    """Order fragments and drop repeats by sequence number, or by arrival if numbers are not reliable."""
    assert assemble(fragments) == assembly


def test_position_orders_the_events_of_one_entry() -> None:
    """Order the events of an array by position. Otherwise a coalescing producer's text would be mixed up."""
    at = EntryId(5, 1)
    fragments = [StoredFragment(Arrival(at, position), None, str(position)) for position in (2, 0, 10, 1)]
    assert assemble(fragments).text == "01210"


def test_entries_of_one_millisecond_are_ordered_by_their_counter() -> None:
    """Order entries of one millisecond by their counter."""
    fragments = [StoredFragment(Arrival(EntryId(5, seq), 0), None, str(seq)) for seq in (10, 9, 100)]
    assert assemble(fragments).text == "910100"


@given(fragment_sets(), st.data())
def test_order_and_redelivery_do_not_matter(fragments: list[StoredFragment], data: st.DataObject) -> None:
    """Assemble the same text for any order and any redeliveries."""
    again = data.draw(st.lists(st.sampled_from(fragments), max_size=4)) if fragments else []
    assert assemble(data.draw(st.permutations([*fragments, *again]))) == assemble(fragments)


@given(fragment_sets())
def test_every_fragment_is_used_or_a_repeat(fragments: list[StoredFragment]) -> None:
    """Count each fragment either as a delta or as a duplicate."""
    assembly = assemble(fragments)
    assert assembly.delta_count + assembly.duplicate_count == len(fragments)
    if assembly.duplicate_count == 0:
        assert len(assembly.text) <= sum(len(fragment.delta) for fragment in fragments)


@given(fragment_sets())
def test_text_can_be_encoded(fragments: list[StoredFragment]) -> None:
    """Return a text that can be encoded as UTF-8."""
    assemble(fragments).text.encode()


def test_halves_of_an_emoji_meet() -> None:
    """Join the halves of an emoji that is split between deltas."""
    assert assemble(_fragments((1, 1, "a\ud83d"), (2, 2, "\ude00b"))).text == "a😀b"
