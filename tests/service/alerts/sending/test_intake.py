"""The intake: every entry once and in order, whatever was lost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from handlers.core.identity import EntryId
from service.alerts.sending.intake import STRAYS_AFTER_MS, Intake
from service.patience import Patience
from service.ports.outbox import Owed, Page, Place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

STREAM = "deltaloom:alerts"
PAGE = 3


def entry(number: int) -> Owed:
    """The entry with this number."""
    return Owed(Place(STREAM, EntryId(number, 0)), b"{}")


class Given:
    """A group's pending entries, as far as an intake asks for them."""

    def __init__(self) -> None:
        self.pending: list[int] = []
        self.idle: set[int] = set()
        """Those that were given out a while ago."""

    async def owed(self, stream: str, after: EntryId, before: EntryId | None, idle_ms: int = 0) -> Page:
        """Some of them."""
        assert stream == STREAM
        assert idle_ms in (0, STRAYS_AFTER_MS)
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
    """One that hands on to a list."""

    async def take(entries: Sequence[Owed]) -> None:
        taken.extend(each.place.id.ms for each in entries)

    return Intake(STREAM, given, Patience(), take)


async def test_what_a_lost_reply_held_comes_first() -> None:
    """Its finished alert was in the next reply, and would go out before it."""
    given, taken = Given(), list[int]()
    reading = intake(given, taken)
    given.pending = [1, 2, 3]
    await reading.take([entry(3)])
    assert taken == [1, 2, 3]


async def test_strays_at_the_end() -> None:
    """If nothing comes after a lost reply, nobody would look for what it held."""
    given, taken = Given(), list[int]()
    reading = intake(given, taken)
    given.pending, given.idle = [1, 2], {1}
    await reading.take_strays()
    assert taken == [1], "the other one may be on its way"
    given.idle = {1, 2}
    await reading.take_strays()
    await reading.take([entry(2)])
    assert taken == [1, 2], "and one that comes late after all is not taken twice"


@given(st.lists(st.sampled_from(["arrives", "is lost", "strays"]), max_size=30), st.integers(0, 8))
async def test_each_once_and_in_order(replies: list[str], inherited: int) -> None:
    """Whichever replies are lost, and whatever was pending before."""
    given, taken = Given(), list[int]()
    reading = intake(given, taken)
    given.pending = list(range(1, inherited + 1))
    await reading.inherit()
    last = inherited
    for reply in replies:
        if reply == "strays":
            given.idle = set(given.pending)
            await reading.take_strays()
            continue
        batch = [last + 1, last + 2]
        last += 2
        given.pending += batch
        if reply == "arrives":
            await reading.take([entry(number) for number in batch])
    given.idle = set(given.pending)
    await reading.take_strays()
    assert taken == list(range(1, last + 1))
