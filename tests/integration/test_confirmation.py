"""Tests of `wait_replicas` and `wait_aof`: a worker reads on only after writes are confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.asyncio import Redis

from deltaloom import GROUP
from tests.bench import KEEPALIVE, Bench, delta, done
from tests.mortal import MortalServer
from tests.server import need_waitaof
from tests.waiting import wait_until
from tests.workers import running_workers, texts

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_worker_reads_on_only_when_a_replica_has_the_batch(tmp_path: Path) -> None:
    """Otherwise a failover would lose entries that only the old master had seen acknowledged."""
    need_waitaof()
    (tmp_path / "primary").mkdir()
    (tmp_path / "replica").mkdir()
    primary = await MortalServer(tmp_path / "primary").start("--repl-diskless-sync-delay", "0")
    replica = MortalServer(tmp_path / "replica")
    try:
        async with Redis.from_url(primary.url) as redis:
            bench = Bench(redis, "deltaloom")
            await bench.publish(delta(1, "a"), done("a"), KEEPALIVE, KEEPALIVE)
            async with running_workers(
                primary.url, "deltaloom", wait_replicas=1, wait_aof="true", batch_size=2
            ) as (worker,):
                away = "redis unavailable, retrying"
                await wait_until(lambda: worker.has_logged(away), message="the worker waits for a replica")
                assert await unread(redis, bench) == 2
                await replica.start("--replicaof", "127.0.0.1", primary.url.rpartition(":")[2])
                await wait_until(lambda: nothing_unread(redis, bench), 30, message="the worker reads on")
                assert [text.text for text in await texts(redis, "deltaloom")] == ["a"]
    finally:
        await primary.kill()
        await replica.kill()


async def unread(redis: Redis, bench: Bench) -> int:
    """Return the number of entries that were not yet delivered to the group."""
    (group,) = await redis.xinfo_groups(bench.names.deltas)
    assert group["name"] == GROUP.encode()
    return int(group["lag"])


async def nothing_unread(redis: Redis, bench: Bench) -> bool:
    """Return whether all entries were delivered to the group."""
    return await unread(redis, bench) == 0
