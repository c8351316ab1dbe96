"""Whose text it is: the same in whatever order the entries are read that say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core.context import Registers, context_of, note
from handlers.core.effects import Context
from handlers.core.identity import EntryId
from tests.strategies import near_entry_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

Note = tuple[Context, EntryId, bool]

values = st.sampled_from([None, None, "a", "b"])
contexts = st.builds(Context, values, values, values, values)
notes = st.lists(st.tuples(contexts, near_entry_ids, st.booleans()), max_size=6)


def noted(all_notes: Sequence[Note]) -> Registers:
    """The registers after all these notes."""
    registers: Registers = {}
    for context, entry, learned in all_notes:
        note(registers, context, entry, learned=learned)
    return registers


@pytest.mark.parametrize(
    ("all_notes", "tenant"),
    [
        ([], None),
        (
            [(Context(tenant="late"), EntryId(2, 0), False), (Context(tenant="early"), EntryId(1, 0), False)],
            "early",
        ),
        (
            [
                (Context(tenant="learned"), EntryId(1, 0), True),
                (Context(tenant="said"), EntryId(2, 0), False),
            ],
            "said",
        ),
        (
            [(Context(tenant="learned"), EntryId(1, 0), True), (Context(model="m"), EntryId(2, 0), False)],
            "learned",
        ),
    ],
    ids=["nothing", "the earliest", "the producer's word", "each name for itself"],
)
def test_who_is_believed(all_notes: list[Note], tenant: str | None) -> None:
    """A text would name a tenant that its producer did not."""
    assert context_of(noted(all_notes)).tenant == tenant


def test_what_comes_after_the_end_of_a_text_is_too_late_for_it() -> None:
    """A text would say a tenant or not, by whether the entry after its last came in the same batch."""
    registers = noted(
        [(Context(tenant="learned"), EntryId(1, 0), True), (Context("said", "m"), EntryId(3, 0), False)]
    )
    assert context_of(registers, EntryId(0, 9)) == Context()
    assert context_of(registers, EntryId(1, 0)) == Context(tenant="learned")
    assert context_of(registers, EntryId(2, 9)) == Context(tenant="learned")
    assert context_of(registers, EntryId(3, 0)) == Context("said", "m")


@given(notes, near_entry_ids, st.data())
def test_order_and_repeats_do_not_matter(all_notes: list[Note], until: EntryId, data: st.DataObject) -> None:
    """Whose text it is would depend on which worker was faster."""
    again = data.draw(st.lists(st.sampled_from(all_notes), max_size=3)) if all_notes else []
    other = data.draw(st.permutations([*all_notes, *again]))
    assert noted(other) == noted(all_notes)
    before = [each for each in all_notes if each[1] <= until]
    assert context_of(noted(all_notes), until) == context_of(noted(before))
