"""Tests of a server whose memory is full: the figures and the leases that are needed then stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from deltaloom import Partitions
from embedded.embedded_server import EmbeddedServer
from service.apps.worker_app import WorkerApp
from service.observability.metrics.worker_instruments import WorkerInstruments
from service.settings import Settings
from service.storage.redis_outbox import RedisLease
from tests.waiting import wait_until
from tests.workers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def full() -> Iterator[str]:
    """Run a server that refuses all writes, for one test; return its URL."""
    with EmbeddedServer(protected=False) as server:
        yield server.url


async def fill(client: Redis) -> None:
    """Let the server refuse writes from now on."""
    await client.config_set("maxmemory", "1")


@pytest.mark.parametrize("at_start", [False, True], ids=["while it runs", "at start"])
async def test_the_memory_is_measured_while_it_is_full(full: str, at_start: bool) -> None:  # noqa: FBT001 - by name
    """Otherwise the alert about a full Redis would resolve at the moment at which it is full."""
    instruments = WorkerInstruments()

    def measured() -> bool:
        ratio = instruments.samples().get("redis_memory_used_ratio", {}).get((), 0)
        return isinstance(ratio, float) and ratio > 1

    async with Redis.from_url(full) as client:
        worker = WorkerApp(Settings(redis_url=full, block_ms=50), instruments)
        if at_start:
            await fill(client)
            starting, served = asyncio.create_task(worker.start()), asyncio.create_task(worker.serve())
            await wait_until(measured, 30)
            worker.stop()
            await asyncio.gather(starting, served)
            return
        async with serving([worker]):
            await fill(client)
            await wait_until(measured, 30)


async def test_a_lease_is_kept_while_memory_is_full(full: str) -> None:
    """Otherwise a relay would lose its lease again and again, and send what it could not record once more."""
    async with Redis.from_url(full) as client:
        mine, theirs = (RedisLease(client, Partitions(prefix="p"), "here", owner) for owner in ("a", "b"))
        assert await mine.acquire(60_000)
        await fill(client)
        assert await mine.acquire(60_000)
        assert not await theirs.acquire(60_000)
        await mine.release()
        assert await theirs.acquire(60_000)
