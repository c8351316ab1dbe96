"""Several batches in hand at once, and not more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import structlog

from service.pipeline import ahead as ahead_module
from service.pipeline.ahead import LARGE_BYTES, LARGE_ENTRIES, Ahead
from service.pipeline.gathering import DEAR_BYTES, Gathering, Rules
from service.ports.storage import RawEntry
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence


RULES = Rules(frozenset(), frozenset(), LARGE_BYTES, 1)


class Taking:
    """A worker whose batches end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.go_on = asyncio.Event()

    async def take(self, gathering: Gathering) -> None:
        """Take a batch."""
        self.begun.append(gathering.ids[0])
        await self.go_on.wait()


def gathering(entries: Sequence[RawEntry]) -> Gathering:
    """Entries that were read together."""
    gathering = Gathering(RULES, 2 * LARGE_BYTES)
    gathering.extend(entries)
    return gathering


def small(number: int) -> Gathering:
    """A batch of one entry."""
    return gathering([RawEntry(f"{number}-0".encode(), [b"a", b"b"])])


def large(number: int) -> Gathering:
    """A batch of many, or of a large one."""
    many = [RawEntry(f"{number}-{n}".encode(), [b"a", b"b"]) for n in range(LARGE_ENTRIES)]
    one = RawEntry(f"{number}-0".encode(), [b"event", b" " * LARGE_BYTES])
    return gathering(many if number % 2 else [one])


def dear(number: int) -> Gathering:
    """A batch with one entry that may take long."""
    return gathering([RawEntry(f"{number}-0".encode(), [b"event", b" " * (DEAR_BYTES + 1)])])


async def test_so_many_at_once_and_not_more() -> None:
    """The server would wait for Python and Python for the server; or all that is unread would be read."""
    taking = Taking()
    ahead = Ahead(taking.take, 2)
    await ahead.take(large(1))
    await ahead.take(large(2))
    third = asyncio.create_task(ahead.take(large(3)))
    await wait_until(lambda: len(taking.begun) == 2, message="two batches are in hand")
    assert not third.done()
    taking.go_on.set()
    await third
    await ahead.drain(10)
    assert taking.begun == [b"1-0", b"2-0", b"3-0"]


async def test_a_small_batch_is_waited_for() -> None:
    """At a moderate load every batch would be tiny, and the worker busy with what each of them costs."""
    taking = Taking()
    ahead = Ahead(taking.take, 2)
    first = asyncio.create_task(ahead.take(small(1)))
    await wait_until(lambda: taking.begun == [b"1-0"], message="it is in hand")
    assert not first.done()
    taking.go_on.set()
    await first


async def test_a_dear_entry_is_not_waited_for() -> None:
    """Texts of other responses would not even be read until it is done."""
    taking = Taking()
    ahead = Ahead(taking.take, 2)
    await ahead.take(dear(1))
    await ahead.take(dear(2))
    taking.go_on.set()
    await ahead.drain(10)
    assert taking.begun == [b"1-0", b"2-0"]


@pytest.mark.parametrize("batch", [small(1), large(1)], ids=["small", "large"])
async def test_where_one_may_be_in_hand_it_is_waited_for(batch: Gathering) -> None:
    """More would be read before it is on disk; and a stop would wait for it as long as FastStream does."""
    taking = Taking()
    ahead = Ahead(taking.take, 1)
    reading = asyncio.create_task(ahead.take(batch))
    await wait_until(lambda: taking.begun == [b"1-0"], message="it is in hand")
    assert not reading.done()
    ahead.wait_no_more()
    await reading
    taking.go_on.set()
    await ahead.drain(10)


async def test_what_is_not_done_when_a_stop_ends_is_let_go_of() -> None:
    """It would go on while the worker leaves the group, and open connections that nobody closes."""
    taking = Taking()
    ended = asyncio.Event()

    async def take(gathering: Gathering) -> None:
        try:
            await taking.take(gathering)
        finally:
            ended.set()

    ahead = Ahead(take, 2)
    await ahead.take(large(1))
    await wait_until(lambda: taking.begun == [b"1-0"], message="it is in hand")
    await ahead.drain(0)
    assert not ended.is_set()
    await ahead.let_go()
    assert ended.is_set()


async def test_who_waits_no_more_for_a_small_batch_does_not_end_it() -> None:
    """FastStream cancels its readers when it stops: the batch in hand would be left to others."""
    taking = Taking()
    ahead = Ahead(taking.take, 2)
    reading = asyncio.create_task(ahead.take(small(1)))
    await wait_until(lambda: taking.begun == [b"1-0"], message="it is in hand")
    reading.cancel()
    await asyncio.wait({reading})
    draining = asyncio.create_task(ahead.drain(60))
    await ahead.drain(0.01)
    assert not draining.done()
    taking.go_on.set()
    await draining


async def test_a_stop_does_not_wait_for_it_twice() -> None:
    """While Redis is away, a stop would wait as long for the reader, and then for the batch it waits for."""
    taking = Taking()
    ahead = Ahead(taking.take, 2)
    reading = asyncio.create_task(ahead.take(small(1)))
    await wait_until(lambda: taking.begun == [b"1-0"], message="it is in hand")
    ahead.wait_no_more()
    await reading
    taking.go_on.set()
    await ahead.drain(10)


async def test_a_stop_leaves_nobody_waiting_for_a_place() -> None:
    """What was read last would be in nobody's hands, and a server that is full would hold up the stop."""
    taking = Taking()
    ahead = Ahead(taking.take, 2)
    for number in (1, 2):
        await ahead.take(large(number))
    reading = asyncio.create_task(ahead.take(large(3)))
    await wait_until(lambda: taking.begun == [b"1-0", b"2-0"], message="two are in hand")
    assert not reading.done()
    ahead.wait_no_more()
    await reading
    await wait_until(lambda: taking.begun == [b"1-0", b"2-0", b"3-0"], message="so is the last one")
    taking.go_on.set()
    await ahead.drain(10)


async def test_a_stop_waits_for_what_is_in_hand_but_not_for_ever() -> None:
    """A stopped worker would leave entries to others that it was about to finish; or never stop."""
    taking = Taking()
    ahead = Ahead(taking.take, 2)
    await ahead.drain(0)
    await ahead.take(large(1))
    await ahead.drain(0.01)
    draining = asyncio.create_task(ahead.drain(60))
    await wait_until(lambda: taking.begun == [b"1-0"], message="it is in hand")
    assert not draining.done()
    taking.go_on.set()
    await draining


async def test_a_batch_that_fails_is_told_and_takes_no_place() -> None:
    """A bug would end in silence, and after some of them nothing would be read any more."""

    async def fail(_gathering: Gathering) -> None:
        raise KeyError

    ahead = Ahead(fail, 1)
    with structlog.testing.capture_logs() as lines:
        for number in range(3):
            await ahead.take(large(number))
        await ahead.drain(10)
    assert [line["event"] for line in lines] == ["batch failed"] * 3


async def test_after_a_slow_batch_the_next_one_has_fewer_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise ten thousand dear entries are in one hand for ten seconds, and all texts wait for them."""
    now = 0.0

    async def take(gathering: Gathering) -> None:
        nonlocal now
        now += seconds[len(gathering)]

    monkeypatch.setattr(ahead_module, "time", SimpleNamespace(monotonic=lambda: now))
    ahead = Ahead(take, 2)
    assert ahead.entries_at_most is None
    seconds = {LARGE_ENTRIES: LARGE_ENTRIES / 8000, 1: 1.0}
    await ahead.take(large(1))
    await ahead.drain(10)
    assert ahead.entries_at_most == 8000 * ahead_module.BATCH_SECONDS
    await ahead.take(small(2))
    assert ahead.entries_at_most == ahead_module.ENTRIES_AT_LEAST
