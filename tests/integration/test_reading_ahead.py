"""Tests of how many entries a worker reads at once."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis as SyncRedis
from structlog.testing import capture_logs

from deltaloom import GROUP
from embedded.free_ports import free_port
from service.pipeline.processing import BatchProcessor
from service.pipeline.scheduler import LARGE_BATCH_ENTRIES
from service.retrying import RetryUntilAvailable
from service.settings import Settings
from service.storage.client.connection import reading_client_of
from service.storage.client.read_plan import BATCH_BYTES, READ_ENTRIES
from service.storage.client.reading_client import Input
from tests.bench import Bench, delta
from tests.waiting import wait_until
from tests.workers import wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from redis.asyncio import Redis

    from service.pipeline.batch_builder import BatchBuilder
    from service.ports.storage import RawEntry
    from service.storage.client.read_batch import Collector
    from service.storage.client.reading_client import ReadingClient


class Replies:
    """A batch that records the sizes of the replies and the ids of their entries."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.ids: list[bytes] = []

    def extend(self, entries: Sequence[RawEntry]) -> None:
        """Add a reply."""
        self.sizes.append(len(entries))
        self.ids += [entry_id for entry_id, _ in entries]


@asynccontextmanager
async def reader(
    bench: Bench,
    redis_url: str,
    new_collector: Callable[[], Collector] = list,
    entries_at_most: Callable[[], int | None] = lambda: None,
) -> AsyncIterator[ReadingClient]:
    """Open a client that reads as FastStream does."""
    group = bench.consumer().group
    await group.ensure()
    inputs = {bench.names.deltas: Input(group, RetryUntilAvailable(), new_collector, entries_at_most)}
    client = reading_client_of(Settings(redis_url=redis_url).address, inputs)
    try:
        yield client
    finally:
        await client.aclose()


async def read(client: ReadingClient, stream: str, count: int = 5000, block: int = 10) -> Any:
    """Return a batch and the last entry id that FastStream gets, or None if there are no entries."""
    reply: Any = await client.xreadgroup(GROUP, "one", {stream: ">"}, count=count, block=block)
    if not reply:
        return None
    ((_, ((last_id, batch),)),) = reply
    return batch.collected, last_id


async def ids_in(redis: Redis, stream: str) -> list[bytes]:
    """Return the ids of all entries of a stream."""
    entries: Any = await redis.xrange(stream)
    return [entry_id for entry_id, _ in entries]


async def calls(redis: Redis) -> int:
    """Return the number of XREADGROUP calls that the server has counted."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_xreadgroup", {"calls": 0})["calls"])


async def test_fewer_large_entries_are_read_at_once(redis: Redis, redis_url: str, prefix: str) -> None:
    """Batches of large entries are limited in bytes.

    Otherwise they would block the server and delay texts.
    """
    bench = Bench(redis, prefix)
    large = [delta(n, "x" * (BATCH_BYTES // 10 - 1000)) for n in range(40)]
    async with reader(bench, redis_url) as client:
        await bench.publish(*large)
        sizes = []
        while batch := await read(client, bench.names.deltas):
            sizes.append(len(batch[0]))
        assert sizes[0] == len(large)
        await bench.publish(*large)
        while batch := await read(client, bench.names.deltas):
            sizes.append(len(batch[0]))
        assert max(sizes[1:]) <= 10
        assert sum(sizes) == 2 * len(large)


async def test_a_backlog_is_read_reply_by_reply(redis: Redis, redis_url: str, prefix: str) -> None:
    """A backlog is read in several replies per batch, which fit into the processor's cache."""
    bench = Bench(redis, prefix)
    total = 9 * READ_ENTRIES // 2
    await bench.publish(*[delta(n, "x") for n in range(total)])
    batches = []
    async with reader(bench, redis_url, Replies) as client:
        while some := await read(client, bench.names.deltas, 3 * READ_ENTRIES):
            batch, last_id = some
            assert last_id == batch.ids[-1]
            batches.append(batch)
        full = READ_ENTRIES
        assert [batch.sizes for batch in batches] == [[full], [full, full], [full, full // 2]]
        ids = [entry_id for batch in batches for entry_id in batch.ids]
        assert ids == await ids_in(redis, bench.names.deltas)

        before = await calls(redis)
        assert await read(client, bench.names.deltas) is None
        assert await calls(redis) == before + 1, "an idle reader sends one request"


async def test_a_read_with_fewer_replies_than_requested_does_not_block(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A reader that gets fewer replies than it requested does not block, and leaves no read open."""
    bench = Bench(redis, prefix)
    await bench.publish(*[delta(n, "x") for n in range(READ_ENTRIES)])
    async with reader(bench, redis_url) as client:
        batch, _ = await read(client, bench.names.deltas)
        assert len(batch) == READ_ENTRIES
        before = await calls(redis)
        assert await read(client, bench.names.deltas) is None
        assert await calls(redis) == before + 2, "it requested twice the number of replies"
        await asyncio.wait_for(client.reads.drain(60), 30)


async def test_a_backlog_goes_on_when_its_group_is_gone(redis: Redis, redis_url: str, prefix: str) -> None:
    """A reader with several requests in flight recovers when its consumer group is deleted."""
    bench = Bench(redis, prefix)
    await bench.publish(*[delta(n, "x") for n in range(3 * READ_ENTRIES)])
    async with reader(bench, redis_url, Replies) as client:
        for _ in range(2):
            assert await read(client, bench.names.deltas)
        await redis.xgroup_destroy(bench.names.deltas, GROUP)
        batch, _ = await read(client, bench.names.deltas)
        assert batch.ids[0] == (await ids_in(redis, bench.names.deltas))[0]


async def test_shutdown_waits_for_the_last_read(redis: Redis, redis_url: str, prefix: str) -> None:
    """A worker that stops still takes the entries of its last read.

    Otherwise they would count as redelivered.
    """
    bench, taken = Bench(redis, prefix), []
    may_take = asyncio.Event()
    async with reader(bench, redis_url, Replies) as client:

        async def read_on() -> None:
            while batch := await read(client, bench.names.deltas, block=30_000):
                await may_take.wait()
                taken.append(batch)

        reading = asyncio.create_task(read_on())
        await wait_until(partial(a_client_waits, redis), message="it waits for a first entry")
        ending = asyncio.create_task(client.reads.drain(60))
        await bench.publish(delta(1, "a"))
        await wait_until(bench.pending, message="the server has given it out")
        assert not ending.done(), "the entry is not taken yet"
        may_take.set()
        await ending
        assert len(taken) == 1
        await bench.publish(delta(2, "b"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reading, 0.2)
        assert await bench.pending() == {"one": 1}, "it reads no more"


async def a_client_waits(redis: Redis) -> bool:
    """Return whether a client waits for an entry."""
    return bool((await redis.info("clients"))["blocked_clients"])


async def test_shutdown_does_not_wait_for_a_retried_read(redis: Redis, prefix: str) -> None:
    """A worker without a server can be stopped while its read is retried."""
    bench = Bench(redis, prefix)
    async with reader(bench, f"redis://127.0.0.1:{free_port()}") as client:
        reading = asyncio.create_task(read(client, bench.names.deltas))
        with capture_logs() as lines:
            await wait_until(lambda: lines, message="the server is away")
        await asyncio.wait_for(client.reads.drain(60), 30)
        reading.cancel()


async def test_a_batch_has_no_more_entries_than_it_should(redis: Redis, redis_url: str, prefix: str) -> None:
    """Otherwise one worker would hold ten thousand slow entries for ten seconds."""
    bench = Bench(redis, prefix)
    await bench.publish(*[delta(n, "x") for n in range(6 * READ_ENTRIES)])
    limit = 700
    async with reader(bench, redis_url, entries_at_most=lambda: limit) as client:
        sizes = [len((await read(client, bench.names.deltas))[0]) for _ in range(3)]
        assert sizes == [READ_ENTRIES, READ_ENTRIES, READ_ENTRIES]
        limit = 2000
        batch, _ = await read(client, bench.names.deltas)
        assert len(batch) == 2 * READ_ENTRIES


async def test_the_next_batch_is_read_before_a_large_one_begins(
    redis: Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Server and worker are busy at the same time: the read does not wait until the batch is decoded."""
    bench = Bench(redis, prefix)
    await bench.publish(*[delta(n, "x") for n in range(6 * LARGE_BATCH_ENTRIES)])
    last = (await ids_in(redis, bench.names.deltas))[-1]
    process, read_ahead = BatchProcessor.process, []

    async def process_when_read(self: BatchProcessor, builder: BatchBuilder, *deliveries: Any) -> None:
        if len(builder) >= LARGE_BATCH_ENTRIES and builder.ids[-1] != last:
            read_ahead.append(is_delivered_after(redis_url, bench.names.deltas, builder.ids[-1]))
        await process(self, builder, *deliveries)

    monkeypatch.setattr(BatchProcessor, "process", process_when_read)
    async with workers_in_process(redis_url, prefix):
        await wait_until_settled(redis, prefix)
    assert read_ahead
    assert all(read_ahead)


def is_delivered_after(url: str, stream: str, entry_id: bytes, seconds: float = 2.0) -> bool:
    """Return whether the group gets an entry after this one in time, while the event loop stands still."""
    deadline = time.monotonic() + seconds
    with SyncRedis.from_url(url) as client:
        while time.monotonic() < deadline:
            (group,) = client.xinfo_groups(stream)
            if group["last-delivered-id"] != entry_id:
                return True
    return False
