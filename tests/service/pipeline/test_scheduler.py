"""Test that a limited number of batches is processed at the same time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import structlog

from service.pipeline import scheduler as scheduler_module
from service.pipeline.batch_builder import LARGE_ENTRY_BYTES, BatchBuilder
from service.pipeline.decoded_batch import Rules
from service.pipeline.scheduler import LARGE_BATCH_ENTRIES, LARGE_BYTES, BatchScheduler
from service.ports.storage import RawEntry
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence


RULES = Rules(frozenset(), frozenset(), LARGE_BYTES, 1)


class PausedWorker:
    """A worker that finishes its batches when the test sets `go_on`."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.go_on = asyncio.Event()

    async def process(self, builder: BatchBuilder) -> None:
        """Record a batch and wait for `go_on`."""
        self.begun.append(builder.ids[0])
        await self.go_on.wait()


def builder(entries: Sequence[RawEntry]) -> BatchBuilder:
    """Return a builder with entries of one read."""
    builder = BatchBuilder(RULES, 2 * LARGE_BYTES)
    builder.extend(entries)
    return builder


def small(number: int) -> BatchBuilder:
    """Return a batch of one small entry."""
    return builder([RawEntry(f"{number}-0".encode(), [b"a", b"b"])])


def large(number: int) -> BatchBuilder:
    """Return a large batch: many entries if `number` is odd, else one of LARGE_BYTES."""
    many = [RawEntry(f"{number}-{n}".encode(), [b"a", b"b"]) for n in range(LARGE_BATCH_ENTRIES)]
    one = RawEntry(f"{number}-0".encode(), [b"event", b" " * LARGE_BYTES])
    return builder(many if number % 2 else [one])


def slow(number: int) -> BatchBuilder:
    """Return a batch with one entry above LARGE_ENTRY_BYTES."""
    return builder([RawEntry(f"{number}-0".encode(), [b"event", b" " * (LARGE_ENTRY_BYTES + 1)])])


async def test_number_of_batches_is_limited() -> None:
    """Process several large batches at a time. Otherwise server and Python would wait for each other."""
    worker = PausedWorker()
    scheduler = BatchScheduler(worker.process, 2)
    await scheduler.schedule(large(1))
    await scheduler.schedule(large(2))
    third = asyncio.create_task(scheduler.schedule(large(3)))
    await wait_until(lambda: len(worker.begun) == 2, message="two batches are being processed")
    assert not third.done()
    worker.go_on.set()
    await third
    await scheduler.drain(10)
    assert worker.begun == [b"1-0", b"2-0", b"3-0"]


async def test_a_small_batch_is_waited_for() -> None:
    """Wait for a small batch. Otherwise moderate load would be processed in many tiny batches."""
    worker = PausedWorker()
    scheduler = BatchScheduler(worker.process, 2)
    first = asyncio.create_task(scheduler.schedule(small(1)))
    await wait_until(lambda: worker.begun == [b"1-0"], message="the batch is being processed")
    assert not first.done()
    worker.go_on.set()
    await first


async def test_a_large_entry_is_not_waited_for() -> None:
    """Continue reading during a large entry. Otherwise texts of other responses would wait for it."""
    worker = PausedWorker()
    scheduler = BatchScheduler(worker.process, 2)
    await scheduler.schedule(slow(1))
    await scheduler.schedule(slow(2))
    worker.go_on.set()
    await scheduler.drain(10)
    assert worker.begun == [b"1-0", b"2-0"]


@pytest.mark.parametrize("batch", [small(1), large(1)], ids=["small", "large"])
async def test_with_a_limit_of_one_each_batch_is_waited_for(batch: BatchBuilder) -> None:
    """Wait for each batch if the limit is one, until shutdown begins."""
    worker = PausedWorker()
    scheduler = BatchScheduler(worker.process, 1)
    reading = asyncio.create_task(scheduler.schedule(batch))
    await wait_until(lambda: worker.begun == [b"1-0"], message="the batch is being processed")
    assert not reading.done()
    scheduler.stop_waiting()
    await reading
    worker.go_on.set()
    await scheduler.drain(10)


async def test_unfinished_batch_is_cancelled_after_the_stop() -> None:
    """Cancel an unfinished batch after the shutdown limit.

    Otherwise it would use connections after their close.
    """
    worker = PausedWorker()
    ended = asyncio.Event()

    async def process(builder: BatchBuilder) -> None:
        try:
            await worker.process(builder)
        finally:
            ended.set()

    scheduler = BatchScheduler(process, 2)
    await scheduler.schedule(large(1))
    await wait_until(lambda: worker.begun == [b"1-0"], message="the batch is being processed")
    await scheduler.drain(0)
    assert not ended.is_set()
    await scheduler.cancel()
    assert ended.is_set()


async def test_cancelling_the_reader_does_not_cancel_its_batch() -> None:
    """Continue a batch when its reader is cancelled, as FastStream does on shutdown."""
    worker = PausedWorker()
    scheduler = BatchScheduler(worker.process, 2)
    reading = asyncio.create_task(scheduler.schedule(small(1)))
    await wait_until(lambda: worker.begun == [b"1-0"], message="the batch is being processed")
    reading.cancel()
    await asyncio.wait({reading})
    draining = asyncio.create_task(scheduler.drain(60))
    await scheduler.drain(0.01)
    assert not draining.done()
    worker.go_on.set()
    await draining


async def test_a_stop_releases_the_reader() -> None:
    """Release the reader at shutdown. Otherwise it and the batch would each use up the time limit."""
    worker = PausedWorker()
    scheduler = BatchScheduler(worker.process, 2)
    reading = asyncio.create_task(scheduler.schedule(small(1)))
    await wait_until(lambda: worker.begun == [b"1-0"], message="the batch is being processed")
    scheduler.stop_waiting()
    await reading
    worker.go_on.set()
    await scheduler.drain(10)


async def test_a_stop_accepts_the_last_read_above_the_limit() -> None:
    """Accept the last read at shutdown above the limit. Otherwise a full scheduler would block shutdown."""
    worker = PausedWorker()
    scheduler = BatchScheduler(worker.process, 2)
    for number in (1, 2):
        await scheduler.schedule(large(number))
    reading = asyncio.create_task(scheduler.schedule(large(3)))
    await wait_until(lambda: worker.begun == [b"1-0", b"2-0"], message="two batches are being processed")
    assert not reading.done()
    scheduler.stop_waiting()
    await reading
    await wait_until(
        lambda: worker.begun == [b"1-0", b"2-0", b"3-0"], message="the third batch is being processed"
    )
    worker.go_on.set()
    await scheduler.drain(10)


async def test_a_stop_waits_for_batches_in_hand_up_to_its_limit() -> None:
    """Wait for batches in hand up to the time limit."""
    worker = PausedWorker()
    scheduler = BatchScheduler(worker.process, 2)
    await scheduler.drain(0)
    await scheduler.schedule(large(1))
    await scheduler.drain(0.01)
    draining = asyncio.create_task(scheduler.drain(60))
    await wait_until(lambda: worker.begun == [b"1-0"], message="the batch is being processed")
    assert not draining.done()
    worker.go_on.set()
    await draining


async def test_a_failed_batch_is_logged_and_releases_its_slot() -> None:
    """Log a failed batch and release its slot. Otherwise reading would stop after a few failures."""

    async def fail(_builder: BatchBuilder) -> None:
        raise KeyError

    scheduler = BatchScheduler(fail, 1)
    with structlog.testing.capture_logs() as lines:
        for number in range(3):
            await scheduler.schedule(large(number))
        await scheduler.drain(10)
    assert [line["event"] for line in lines] == ["batch failed"] * 3


async def test_after_a_slow_batch_the_next_one_has_fewer_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the next read after a slow batch. Otherwise one batch could take ten seconds."""
    now = 0.0

    async def process(builder: BatchBuilder) -> None:
        nonlocal now
        now += seconds[len(builder)]

    monkeypatch.setattr(scheduler_module, "time", SimpleNamespace(monotonic=lambda: now))
    scheduler = BatchScheduler(process, 2)
    assert scheduler.entries_at_most is None
    seconds = {LARGE_BATCH_ENTRIES: LARGE_BATCH_ENTRIES / 8000, 1: 1.0}
    await scheduler.schedule(large(1))
    await scheduler.drain(10)
    assert scheduler.entries_at_most == 8000 * scheduler_module.BATCH_SECONDS
    await scheduler.schedule(small(2))
    assert scheduler.entries_at_most == scheduler_module.ENTRIES_AT_LEAST


@pytest.mark.parametrize(
    ("columns", "entries", "at_most"), [(300, 600, 900), (300, 300, 900), (600, 600, 1800), (800, 800, 2000)]
)
async def test_a_slow_batch_of_many_columns_may_grow(
    monkeypatch: pytest.MonkeyPatch, columns: int, entries: int, at_most: int
) -> None:
    """Allow some entries a column, within limits. Otherwise a slow worker would fall further behind."""
    now = 0.0

    async def process(_builder: BatchBuilder) -> None:
        nonlocal now
        now += 10

    monkeypatch.setattr(scheduler_module, "time", SimpleNamespace(monotonic=lambda: now))
    scheduler = BatchScheduler(process, 2)
    event = b'{"type": "t"}'
    await scheduler.schedule(
        builder(
            [
                RawEntry(b"1-%d" % n, [b"event", event, b"response_id", b"%d" % (n % columns)])
                for n in range(entries)
            ]
        )
    )
    await scheduler.drain(10)
    assert scheduler.entries_at_most == at_most
