"""Test `deltaloom drain`: workers stop reading, finish what they have read, and read again."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import GROUP, Partitions, StreamNames
from tests.service.cli.command import deltaloom, environment
from tests.waiting import wait_until
from tests.workers import running_workers, texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

PART = {"item_id": "m", "output_index": 0, "content_index": 0}
DONE = {"type": "response.refusal.done", "refusal": "No.", **PART}
DELTA = {"type": "response.refusal.delta", "sequence_number": 1, "delta": "No", **PART}


async def publish(redis: Redis, names: StreamNames, event: dict[str, Any], *responses: str) -> None:
    """Publish an event of each response."""
    for response in responses:
        fields: Any = {"event": json.dumps(event), "response_id": response}
        await redis.xadd(names.deltas, fields)


async def drain(redis_url: str, prefix: str, *arguments: str, code: int = 0, partitions: int = 0) -> str:
    """Run the command, and return its output."""
    env = environment(redis_url, prefix, DELTALOOM_PARTITIONS=str(partitions))
    done = await asyncio.to_thread(deltaloom, "drain", *arguments, env=env)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.parametrize("partitions", [0, 3])
async def test_workers_stop_reading_and_read_again(
    redis: Redis, redis_url: str, prefix: str, partitions: int
) -> None:
    """Read no entry while a request stands, not even in a new worker, and all of them afterwards."""
    every = Partitions(partitions, prefix).all
    async with running_workers(redis_url, prefix, 2, partitions=partitions, log_level="debug") as workers:
        for names in every:
            await publish(redis, names, DELTA, f"open_{names.partition}")
        await asyncio.gather(*(wait_until_read(redis, names) for names in every))
        report = json.loads(await drain(redis_url, prefix, "--json", partitions=partitions))
        assert report == {
            "drained": True,
            "unread": 0,
            "pending": 0,
            "open": len(every),
            "waiting": 0,
            "alerts": 0,
            "reading": 0,
        }
        for worker in workers:
            assert worker.has_logged("draining, reading stopped")
        for names in every:
            await publish(redis, names, DONE, f"open_{names.partition}")
        async with running_workers(redis_url, prefix, partitions=partitions) as (late,):
            assert late.has_logged("draining, reading stopped"), "before its first read"
            report = json.loads(await drain(redis_url, prefix, "--json", partitions=partitions))
            assert (report["drained"], report["unread"], report["pending"]) == (True, len(every), 0)
        printed = await drain(redis_url, prefix, "--resume", partitions=partitions)
        assert printed == "the workers read again within 1 s\n"
        await asyncio.gather(*(wait_until_read(redis, names) for names in every))
        assert await drain(redis_url, prefix, "--resume", partitions=partitions) == "not draining\n"
    for names in every:
        assert await redis.xlen(names.assembled) == 1
        assert (await redis.xpending(names.deltas, GROUP))["pending"] == 0


async def wait_until_read(redis: Redis, names: StreamNames) -> None:
    """Wait until no entry is unread or pending."""

    async def read() -> bool:
        groups = await redis.xinfo_groups(names.deltas)
        return any(group["lag"] == 0 and group["pending"] == 0 for group in groups)

    await wait_until(read, 60, message="all entries are read and acknowledged")


async def test_all_input_is_read_before(redis: Redis, redis_url: str, prefix: str) -> None:
    """Read and finish all input before the workers stop reading, if asked to."""
    names = StreamNames(prefix)
    await publish(redis, names, DONE, *(f"resp_{n}" for n in range(50)))
    async with running_workers(redis_url, prefix) as (worker,):
        printed = await drain(redis_url, prefix, "--all")
        assert worker.has_logged("draining, reading stopped")
    lines = {line.split()[0]: line.split()[1] for line in printed.splitlines()}
    assert lines == {"unread": "0", "pending": "0", "open": "50", "waiting": "0", "alerts": "0"}
    assert len(await texts(redis, prefix)) == 50


async def test_pending_entries_of_a_dead_worker_are_finished(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """Claim and finish the entries of a dead worker while draining."""
    names = StreamNames(prefix)
    await publish(redis, names, DONE, "resp_1")
    await redis.xgroup_create(names.deltas, GROUP, id="0")
    await redis.xreadgroup(GROUP, "dead", {names.deltas: ">"})
    await redis.set(names.name("draining"), "soon", ex=600)
    async with running_workers(redis_url, prefix, claim_time=1):
        report = json.loads(await drain(redis_url, prefix, "--json"))
    assert (report["drained"], report["pending"]) == (True, 0)
    assert len(await texts(redis, prefix)) == 1


async def test_it_gives_up_in_time(redis: Redis, redis_url: str, prefix: str) -> None:
    """Exit with 1 and say what is left, if no worker finishes the entries."""
    names = StreamNames(prefix)
    await publish(redis, names, DONE, "resp_1")
    await redis.xgroup_create(names.deltas, GROUP, id="0")
    await redis.xreadgroup(GROUP, "dead", {names.deltas: ">"})
    # Long enough that only the pending entry is in the way, and no read that may just have begun.
    report = json.loads(await drain(redis_url, prefix, "--json", "--timeout", "4", code=1))
    assert (report["drained"], report["pending"], report["reading"]) == (False, 1, 0)
    assert 0 < await redis.ttl(names.name("draining")) <= 3600
    await redis.delete(names.name("draining"))
    report = json.loads(await drain(redis_url, prefix, "--json", "--all", "--timeout", "1", code=1))
    assert not report["drained"]
    assert not await redis.exists(names.name("draining")), "it was not empty, so nobody stops reading"


async def test_a_forgotten_request_ends(redis: Redis, redis_url: str, prefix: str) -> None:
    """Read again when the request expires. Otherwise a forgotten one would stop a deployment for ever."""
    names = StreamNames(prefix)
    async with workers_in_process(redis_url, prefix, sweep_interval=0.1) as (worker,):
        await redis.set(names.name("draining"), "soon", ex=600)
        await wait_until(lambda: worker.is_draining, message="it drains")
        assert worker.not_ready()[0].startswith("draining:")
        await publish(redis, names, DONE, "resp_1")
        await redis.pexpire(names.name("draining"), 1)
        await wait_until_settled(redis, prefix)
        await wait_until(lambda: not worker.is_draining, message="it notices that the request has expired")
        assert worker.not_ready() == []
    assert len(await texts(redis, prefix)) == 1


async def test_check_reports_a_drain(redis: Redis, redis_url: str, prefix: str) -> None:
    """Report until when nobody reads, and how to end it. Otherwise a rising lag would have no cause."""
    names = StreamNames(prefix)

    async def reported() -> dict[str, Any] | None:
        env = environment(redis_url, prefix)
        done = await asyncio.to_thread(deltaloom, "check", "--read-only", "--json", env=env)
        found: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
        return next((each for each in found if each["what"] == "drain"), None)

    assert await reported() is None
    await redis.set(names.name("draining"), "2026-05-04T12:05:00+00:00", ex=600)
    says = "workers do not read until 2026-05-04T12:05:00+00:00: deltaloom drain --resume"
    assert await reported() == {"what": "drain", "state": "warn", "says": says}


async def test_a_draining_worker_can_be_stopped(redis: Redis, redis_url: str, prefix: str) -> None:
    """Stop at once while draining, and leave the entries unread."""
    names = StreamNames(prefix)
    await redis.set(names.name("draining"), "soon", ex=600)
    async with running_workers(redis_url, prefix) as (worker,):
        await publish(redis, names, DONE, "resp_1")
        assert await worker.stop() == 0
    (group,) = await redis.xinfo_groups(names.deltas)
    assert (group["lag"], group["pending"]) == (1, 0)
