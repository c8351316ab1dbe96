"""Test the intake: each entry once and in order, also after lost replies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from handlers.core.identity import EntryId
from service.alerts.sending.intake import ORPHANED_AFTER_MS, Intake
from service.ports.outbox import EntryRef, Page, PendingAlert
from service.retrying import RetryUntilAvailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

STREAM = "deltaloom:alerts"
PAGE = 3


def entry(number: int) -> PendingAlert:
    """Return the entry with this number."""
    return PendingAlert(EntryRef(STREAM, EntryId(number, 0)), b"{}")


class Given:
    """A group's pending entries, as an intake reads them."""

    def __init__(self) -> None:
        self.pending: list[int] = []
        self.idle: set[int] = set()
        """Entries that were delivered a while ago."""

    async def pending_page(
        self, stream: str, after: EntryId, before: EntryId | None, idle_ms: int = 0
    ) -> Page:
        """Return the next page of them."""
        assert stream == STREAM
        assert idle_ms in (0, ORPHANED_AFTER_MS)
        found = [
            number
            for number in self.pending
            if after < EntryId(number, 0)
            and (before is None or EntryId(number, 0) < before)
            and (not idle_ms or number in self.idle)
        ]
        some = found[:PAGE]
        return Page([entry(n) for n in some], EntryId(some[-1], 0) if some else after, len(found) > PAGE, 0)


def intake(given: Any, taken: list[int]) -> Intake:
    """Return an intake that appends to `taken`."""

    async def accept(entries: Sequence[PendingAlert]) -> None:
        taken.extend(each.ref.id.ms for each in entries)

    return Intake(STREAM, given, RetryUntilAvailable(), accept)


async def test_entries_of_a_lost_reply_come_first() -> None:
    """Take the entries of a lost reply before later ones. Otherwise an end would overtake its beginning."""
    given, taken = Given(), list[int]()
    reading = intake(given, taken)
    given.pending = [1, 2, 3]
    await reading.pass_on([entry(3)])
    assert taken == [1, 2, 3]


async def test_orphaned_entries_are_taken() -> None:
    """Take orphaned entries without a later reply, and only once they are old enough."""
    given, taken = Given(), list[int]()
    reading = intake(given, taken)
    given.pending, given.idle = [1, 2], {1}
    await reading.pass_on_orphaned()
    assert taken == [1], "the other one may still arrive"
    given.idle = {1, 2}
    await reading.pass_on_orphaned()
    await reading.pass_on([entry(2)])
    assert taken == [1, 2], "a late reply is not taken twice"


@given(st.lists(st.sampled_from(["arrives", "is lost", "strays"]), max_size=30), st.integers(0, 8))
async def test_each_once_and_in_order(replies: list[str], inherited: int) -> None:
    """Take each entry once and in order, for any lost replies and any inherited entries."""
    given, taken = Given(), list[int]()
    reading = intake(given, taken)
    given.pending = list(range(1, inherited + 1))
    await reading.pass_on_pending()
    last = inherited
    for reply in replies:
        if reply == "strays":
            given.idle = set(given.pending)
            await reading.pass_on_orphaned()
            continue
        batch = [last + 1, last + 2]
        last += 2
        given.pending += batch
        if reply == "arrives":
            await reading.pass_on([entry(number) for number in batch])
    given.idle = set(given.pending)
    await reading.pass_on_orphaned()
    assert taken == list(range(1, last + 1))
