"""Test the context of a text: it does not depend on the order in which entries are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core.context import Registers, context_of, merge_context, merged
from handlers.core.effects import ContextValues
from handlers.core.identity import EntryId
from tests.strategies import near_entry_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

Note = tuple[ContextValues, EntryId, bool]

values = st.sampled_from([None, None, "a", "b"])
contexts = st.builds(ContextValues, values, values, values, values)
notes = st.lists(st.tuples(contexts, near_entry_ids, st.booleans()), max_size=6)


def noted(all_notes: Sequence[Note]) -> Registers:
    """Return the registers after these notes."""
    registers: Registers = {}
    for context, entry, learned in all_notes:
        merge_context(registers, context, entry, learned=learned)
    return registers


@pytest.mark.parametrize(
    ("all_notes", "tenant"),
    [
        ([], None),
        (
            [
                (ContextValues(tenant="late"), EntryId(2, 0), False),
                (ContextValues(tenant="early"), EntryId(1, 0), False),
            ],
            "early",
        ),
        (
            [
                (ContextValues(tenant="learned"), EntryId(1, 0), True),
                (ContextValues(tenant="given"), EntryId(2, 0), False),
            ],
            "given",
        ),
        (
            [
                (ContextValues(tenant="learned"), EntryId(1, 0), True),
                (ContextValues(model="m"), EntryId(2, 0), False),
            ],
            "learned",
        ),
    ],
    ids=["nothing", "the earliest", "the producer's word", "each name for itself"],
)
def test_earliest_producer_value_wins(all_notes: list[Note], tenant: str | None) -> None:
    """Use the earliest value of each name, and a producer's value before a learned one."""
    assert context_of(noted(all_notes)).tenant == tenant


def test_context_after_the_closing_is_ignored() -> None:
    """Ignore context after the closing.

    Otherwise a text's tenant would depend on the cuts between batches.
    """
    registers = noted(
        [
            (ContextValues(tenant="learned"), EntryId(1, 0), True),
            (ContextValues("given", "m"), EntryId(3, 0), False),
        ]
    )
    assert context_of(registers, EntryId(0, 9)) == ContextValues()
    assert context_of(registers, EntryId(1, 0)) == ContextValues(tenant="learned")
    assert context_of(registers, EntryId(2, 9)) == ContextValues(tenant="learned")
    assert context_of(registers, EntryId(3, 0)) == ContextValues("given", "m")


@given(notes, near_entry_ids, st.data())
def test_order_and_repeats_do_not_matter(all_notes: list[Note], until: EntryId, data: st.DataObject) -> None:
    """Give the same context for any order of notes and any repeats."""
    again = data.draw(st.lists(st.sampled_from(all_notes), max_size=3)) if all_notes else []
    other = data.draw(st.permutations([*all_notes, *again]))
    assert noted(other) == noted(all_notes)
    before = [each for each in all_notes if each[1] <= until]
    assert context_of(noted(all_notes), until) == context_of(noted(before))


@given(notes, notes)
def test_merging_keeps_the_earliest_values(some: list[Note], others: list[Note]) -> None:
    """Merge the registers of two readers as if one had read all entries."""
    assert merged(noted(some), noted(others)) == noted([*some, *others])
