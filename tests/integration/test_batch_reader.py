"""Tests of how a batch grows while its reader lingers, and of several streams that are read together."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from deltaloom import GROUP
from service.observability.liveness import LIMITS, STUCK_AFTER, Liveness
from service.retrying import RetryUntilAvailable
from service.settings import Settings
from service.storage.client.connection import reading_client_of
from service.storage.client.reading_client import Input
from service.under_way import steps
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

    from service.storage.client.reading_client import ReadingClient

LONG = 60.0
"""Seconds of lingering that no test waits for."""


class GroupAtStart:
    """A consumer group that begins at the start of its stream."""

    def __init__(self, redis: Redis, stream: str) -> None:
        self._redis = redis
        self._stream = stream

    async def ensure(self) -> None:
        """Create the group and the stream."""
        await self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True)


@asynccontextmanager
async def reader(
    redis: Redis,
    redis_url: str,
    *streams: str,
    linger: float = 0.0,
    is_urgent: Callable[[Any], bool] = lambda _: False,
) -> AsyncIterator[ReadingClient]:
    """Open a client that reads these streams as FastStream does."""
    inputs = {}
    for stream in streams:
        group = GroupAtStart(redis, stream)
        await group.ensure()
        inputs[stream] = Input(group, RetryUntilAvailable(), is_urgent=is_urgent)
    client = reading_client_of(Settings(redis_url=redis_url).address, inputs, linger)
    try:
        yield client
    finally:
        await client.aclose()


async def read(client: ReadingClient, stream: str, block: int = 2000) -> list[bytes]:
    """Return the ids of a batch; an empty list if no entry came."""
    reply: Any = await client.xreadgroup(GROUP, "one", {stream: ">"}, count=1000, block=block)
    return [entry_id for _, ((_, batch),) in reply for entry_id, _ in batch.collected]


async def publish(redis: Redis, stream: str, count: int = 1) -> list[bytes]:
    """Add entries in one transaction, so that they come together; return their ids."""
    pipeline = redis.pipeline(transaction=True)
    for number in range(count):
        pipeline.xadd(stream, {"n": number})
    return list(await pipeline.execute())


async def pending(redis: Redis, stream: str) -> int:
    """Return the number of entries that were delivered."""
    return int((await redis.xpending(stream, GROUP))["pending"])


async def reads(redis: Redis) -> int:
    """Return the number of XREADGROUP calls that the server has counted."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_xreadgroup", {"calls": 0})["calls"])


async def blocked(redis: Redis) -> int:
    """Return the number of clients that wait for entries."""
    return int((await redis.info("clients"))["blocked_clients"])


async def delivered(redis: Redis, stream: str, count: int) -> bool:
    """Return whether this many entries were delivered."""
    return await pending(redis, stream) == count


# ------------------------------------------------------------------------------------------- lingering


async def test_a_batch_gets_what_comes_while_it_is_open(redis: Redis, redis_url: str, prefix: str) -> None:
    """A batch is read again while it is open: at a third of its time, when many entries complete it."""
    stream = f"{prefix}:deltas"
    async with reader(redis, redis_url, stream, linger=6.0) as client:
        ids = await publish(redis, stream, 2)
        reading = asyncio.create_task(read(client, stream))
        await wait_until(lambda: delivered(redis, stream, 2), message="the first entries are read")
        ids += await publish(redis, stream, 200)
        assert await reading == ids


async def test_an_open_batch_is_read_three_times(redis: Redis, redis_url: str, prefix: str) -> None:
    """A batch is complete when its time is over, and until then its reader does not ask again and again."""
    stream = f"{prefix}:deltas"
    async with reader(redis, redis_url, stream, linger=0.3) as client:
        ids = await publish(redis, stream, 2)
        before = await reads(redis)
        assert await read(client, stream) == ids
        assert await reads(redis) - before <= 1 + 3


async def test_an_entry_that_comes_alone_does_not_wait(redis: Redis, redis_url: str, prefix: str) -> None:
    """The first entry on a quiet stream is a batch of its own."""
    stream = f"{prefix}:deltas"
    async with reader(redis, redis_url, stream, linger=LONG) as client:
        reading = asyncio.create_task(read(client, stream))
        await wait_until(lambda: blocked(redis), message="the client waits for entries")
        ids = await publish(redis, stream)
        assert await asyncio.wait_for(reading, 30) == ids


async def test_many_entries_do_not_wait(redis: Redis, redis_url: str, prefix: str) -> None:
    """A batch with many entries is complete at once."""
    stream = f"{prefix}:deltas"
    async with reader(redis, redis_url, stream, linger=LONG) as client:
        ids = await publish(redis, stream, 200)
        assert await asyncio.wait_for(read(client, stream), 30) == ids


async def test_an_urgent_batch_does_not_wait(redis: Redis, redis_url: str, prefix: str) -> None:
    """A batch that is urgent from its first entries is complete at once."""
    stream = f"{prefix}:deltas"
    async with reader(redis, redis_url, stream, linger=LONG, is_urgent=lambda _: True) as client:
        ids = await publish(redis, stream, 2)
        assert await asyncio.wait_for(read(client, stream), 30) == ids


async def test_an_error_of_the_urgency_costs_no_entry(redis: Redis, redis_url: str, prefix: str) -> None:
    """A batch is complete if nobody can tell whether it is urgent, and the next one is read."""
    stream = f"{prefix}:deltas"

    def fail(_: object) -> bool:
        raise ValueError("a bug")

    async with reader(redis, redis_url, stream, linger=LONG, is_urgent=fail) as client:
        for _ in range(2):
            ids = await publish(redis, stream, 2)
            assert await asyncio.wait_for(read(client, stream), 30) == ids


async def test_a_stop_completes_an_open_batch(redis: Redis, redis_url: str, prefix: str) -> None:
    """A worker that stops processes the entries that it was given, and reads no more."""
    stream = f"{prefix}:deltas"
    async with reader(redis, redis_url, stream, linger=2.0) as client:
        ids = await publish(redis, stream, 2)
        reading = asyncio.create_task(read(client, stream))
        await wait_until(lambda: delivered(redis, stream, 2), message="the entries are read")
        draining = asyncio.create_task(client.reads.drain(60))
        assert await reading == ids
        assert not draining.done(), "the batch is in progress until the next one is requested"
        last = asyncio.create_task(read(client, stream))
        await asyncio.wait_for(draining, 30)
        await publish(redis, stream)
        assert await blocked(redis) == 0
        assert await pending(redis, stream) == 2
        last.cancel()


# ------------------------------------------------------------------------------------- several streams


async def test_streams_are_read_together(redis: Redis, redis_url: str, prefix: str) -> None:
    """The client waits for the entries of all streams with one command."""
    streams = [f"{prefix}:{{{n}}}:deltas" for n in range(8)]
    async with reader(redis, redis_url, *streams) as client:
        before = await reads(redis)
        reading = [asyncio.create_task(read(client, stream)) for stream in streams]
        await wait_until(lambda: blocked(redis), message="the client waits for entries")
        ids = [(await publish(redis, stream))[0] for stream in streams]
        assert await asyncio.gather(*reading) == [[each] for each in ids]
        assert await reads(redis) - before <= len(streams)
        assert await blocked(redis) == 0


async def test_a_stream_of_another_type_stops_no_other(redis: Redis, redis_url: str, prefix: str) -> None:
    """A stream that cannot be read waits for an operator, which probes see; the others are read on."""
    broken, *streams = [f"{prefix}:{{{n}}}:deltas" for n in range(4)]
    async with reader(redis, redis_url, broken, *streams) as client:
        await redis.delete(broken)
        await redis.set(broken, "no stream")
        with capture_logs() as lines:
            reading = asyncio.create_task(read(client, broken))
            others = [asyncio.create_task(read(client, stream)) for stream in streams]
            await wait_until(lambda: lines, message="the error is logged")
            ids = [await publish(redis, stream) for stream in streams]
            assert await asyncio.gather(*others) == ids
            assert lines[0]["event"] == "redis misconfigured, waiting for an operator"
            assert broken in lines[0]["error"]
            liveness = Liveness(steps)
            later = time.monotonic() + STUCK_AFTER * LIMITS["read"] + 1
            assert [each.partition(" has waited")[0] for each in liveness.waiting(later)] == [
                f"a read of {broken}"
            ]
            await redis.delete(broken)
            await wait_until(partial(redis.exists, broken), message="the group is created again")
            assert await publish(redis, broken) == await asyncio.wait_for(reading, 30)
            assert not liveness.waiting(later)


async def test_a_missing_group_is_created_again(redis: Redis, redis_url: str, prefix: str) -> None:
    """A stream with a new group is read from its start; the other stream goes on."""
    streams = [f"{prefix}:{{{n}}}:deltas" for n in range(2)]
    async with reader(redis, redis_url, *streams) as client:
        published = [await publish(redis, stream, 2) for stream in streams]
        assert [await read(client, stream) for stream in streams] == published
        await redis.xgroup_destroy(streams[0], GROUP)
        reading = [asyncio.create_task(read(client, stream)) for stream in streams]
        assert await reading[0] == published[0]
        assert await publish(redis, streams[1]) == await reading[1]


async def test_a_cancelled_read_costs_no_other(redis: Redis, redis_url: str, prefix: str) -> None:
    """A subscriber that ends while a read is in progress leaves the other streams readable."""
    streams = [f"{prefix}:{{{n}}}:deltas" for n in range(2)]
    async with reader(redis, redis_url, *streams) as client:
        reading = [asyncio.create_task(read(client, stream)) for stream in streams]
        await wait_until(lambda: blocked(redis), message="the client waits for entries")
        reading[0].cancel()
        await publish(redis, streams[0])
        assert await publish(redis, streams[1]) == await asyncio.wait_for(reading[1], 30)
