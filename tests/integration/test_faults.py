"""Faults of the server: it dies, hangs, is full, loses data or is read-only.

The worker reports it once, and recovers.
"""

from __future__ import annotations

import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from deltaloom import GROUP, StreamNames
from tests.bench import Bench, delta, done
from tests.mortal import MortalServer
from tests.server import need_waitaof
from tests.waiting import wait_until
from tests.workers import WorkerProcess, running_workers, texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PREFIX = "deltaloom"
NAMES = StreamNames(PREFIX)


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[MortalServer]:
    """Run a server for one test alone."""
    server = MortalServer(tmp_path)
    yield await server.start()
    await server.kill()


async def publish(url: str, response_id: str, *events: object) -> None:
    """Publish each event as an entry."""
    async with Redis.from_url(url) as redis:
        for event in events:
            await redis.xadd(NAMES.deltas, {"event": json.dumps(event), "response_id": response_id})


async def finished(url: str) -> list[str]:
    """Return the texts that have come out."""
    async with Redis.from_url(url) as redis:
        return [text.text for text in await texts(redis, PREFIX)]


def troubles(worker: WorkerProcess) -> list[str]:
    """Return "away" or "back" for each line in which the worker reports the server's state."""
    words = {"redis unavailable, retrying": "away", "redis available again": "back"}
    return [words[line["event"]] for line in worker.lines() if line["event"] in words]


async def comes_out(url: str, text: str) -> None:
    """Wait until a text has come out, and assert that it came out once."""

    async def came_out() -> bool:
        return text in await finished(url)

    await wait_until(came_out, 30, message=f"{text} comes out")
    assert (await finished(url)).count(text) == 1


async def test_the_server_is_killed_and_starts_again(mortal: MortalServer) -> None:
    """A worker recovers from a restart of Redis by itself, without loss and with few log lines."""
    async with running_workers(mortal.url, PREFIX) as (worker,):
        await publish(mortal.url, "resp_1", delta(1, "be"))
        await mortal.kill()
        await wait_until(lambda: "away" in troubles(worker), 30, message="the worker says it is away")
        await mortal.start()
        await publish(mortal.url, "resp_1", delta(2, "fore"), done("before"))
        await comes_out(mortal.url, "before")
        assert [line for line in worker.lines() if "exception" in line] == []
        assert len(troubles(worker)) <= 6, "one line a state, not one an attempt"
        assert troubles(worker)[-1] == "back"


async def test_the_server_hangs_and_wakes_up(mortal: MortalServer) -> None:
    """A hanging server is treated like a dead one: no traceback, no loss, no repeats."""
    async with running_workers(mortal.url, PREFIX) as (worker,):
        await publish(mortal.url, "resp_1", delta(1, "a"))
        mortal.hang()
        await wait_until(lambda: "away" in troubles(worker), 60, message="the worker says it is away")
        mortal.go_on()
        await publish(mortal.url, "resp_1", delta(2, "b"), done("ab"))
        await comes_out(mortal.url, "ab")
        assert [line for line in worker.lines() if "exception" in line] == []


async def test_the_server_is_out_of_memory(mortal: MortalServer) -> None:
    """Otherwise a script that stops half way at the memory limit would acknowledge what it has not stored."""
    async with running_workers(mortal.url, PREFIX) as (worker,), Redis.from_url(mortal.url) as redis:
        await publish(mortal.url, "resp_1", delta(1, "a"))
        worker.freeze()
        await publish(mortal.url, "resp_1", delta(2, "b"), done("ab"))
        await redis.config_set("maxmemory", "1")
        worker.thaw()
        await wait_until(lambda: "away" in troubles(worker), 30, message="the worker says it is full")
        assert await finished(mortal.url) == []
        await redis.config_set("maxmemory", "0")
        await comes_out(mortal.url, "ab")


async def test_what_a_worker_holds_is_kept_and_given_back_without_memory(mortal: MortalServer) -> None:
    """A worker can renew and release its pending entries on a server that is out of memory."""
    async with Redis.from_url(mortal.url) as redis:
        worker, other = Bench(redis, PREFIX).consumer("one"), Bench(redis, PREFIX).consumer("other")
        await publish(mortal.url, "resp_1", delta(1, "a"), done("a"))
        in_progress: list[Any] = [entry.id for entry in await worker.read()]
        await redis.xclaim(NAMES.deltas, GROUP, "one", 0, in_progress, idle=100_000, justid=True)
        await redis.config_set("maxmemory", "1")
        await worker.group.renew(in_progress)
        pending: Any = await redis.xpending_range(NAMES.deltas, GROUP, "-", "+", 10)
        assert all(each["time_since_delivered"] < 100_000 for each in pending)
        assert await worker.group.leave() == 2
        await redis.config_set("maxmemory", "0")
        await other.reclaimer.reclaim()
        assert await finished(mortal.url) == ["a"]


@pytest.mark.parametrize("loss", ["flushall", "group", "stream"])
async def test_the_stream_or_its_group_is_lost(mortal: MortalServer, loss: str) -> None:
    """A worker creates a lost consumer group again, from the stream's beginning.

    FastStream alone would stop.
    """
    async with running_workers(mortal.url, PREFIX) as (worker,), Redis.from_url(mortal.url) as redis:
        await publish(mortal.url, "resp_1", delta(1, "one"), done("one"))
        await comes_out(mortal.url, "one")
        if loss == "flushall":
            await redis.flushall()
        elif loss == "group":
            await redis.xgroup_destroy(NAMES.deltas, GROUP)
        else:
            await redis.delete(NAMES.deltas)
        await publish(mortal.url, "resp_2", delta(1, "two"), done("two"))
        await comes_out(mortal.url, "two")
        assert (await finished(mortal.url)).count("one") == (0 if loss == "flushall" else 1)
        assert [line for line in worker.lines() if "exception" in line] == []


async def test_the_server_takes_no_writes(mortal: MortalServer) -> None:
    """A worker waits while its server is read-only, as an old master is after a failover."""
    async with running_workers(mortal.url, PREFIX) as (worker,), Redis.from_url(mortal.url) as redis:
        worker.freeze()
        await publish(mortal.url, "resp_1", delta(1, "a"), done("a"))
        await redis.replicaof("127.0.0.1", "1")
        worker.thaw()
        await wait_until(lambda: "away" in troubles(worker), 30, message="the worker says it is read-only")
        await redis.replicaof("NO", "ONE")
        await comes_out(mortal.url, "a")
        assert [line for line in worker.lines() if "exception" in line] == []


async def test_scripts_are_flushed_and_connections_killed(mortal: MortalServer) -> None:
    """Flushed scripts and killed connections do not change the results."""
    async with (
        running_workers(mortal.url, PREFIX, claim_time=2) as (worker,),
        Redis.from_url(mortal.url) as redis,
    ):
        for number in range(5):
            await publish(mortal.url, f"resp_{number}", delta(1, f"{number}"), done(f"{number}"))
            await redis.script_flush()
            await redis.client_kill_filter(_type="normal", skipme=True)
            await comes_out(mortal.url, f"{number}")
        assert [line for line in worker.lines() if "exception" in line] == []


async def test_a_worker_that_stops_leaves_nothing_pending(mortal: MortalServer) -> None:
    """SIGTERM under load ends a worker without pending entries and without its consumer."""
    async with (
        running_workers(mortal.url, PREFIX, batch_size=5) as (worker,),
        Redis.from_url(mortal.url) as redis,
    ):
        await publish(mortal.url, "resp_1", *[delta(n, "x") for n in range(500)])
        assert await worker.stop() == 0
        pending = await redis.xpending(NAMES.deltas, GROUP)
        assert pending["pending"] == 0
        assert await redis.xinfo_consumers(NAMES.deltas, GROUP) == []


async def hang_with_a_batch_in_hand(mortal: MortalServer, worker: WorkerProcess, redis: Redis) -> None:
    """Make the server hang while the worker has a batch in hand."""

    async def is_stopped_with_a_batch_in_hand() -> bool:
        worker.freeze()
        (group,) = await redis.xinfo_groups(NAMES.deltas)
        if group["pending"]:
            return True
        worker.thaw()
        return False

    await wait_until(is_stopped_with_a_batch_in_hand, message="the worker has something in hand")
    mortal.hang()
    worker.thaw()


@pytest.mark.parametrize("waits", [{}, {"wait_aof": True}], ids=["ahead", "one by one"])
async def test_a_worker_stops_while_the_server_hangs(mortal: MortalServer, waits: dict[str, Any]) -> None:
    """A worker stops within its shutdown timeout although the server hangs with a batch in hand."""
    if "wait_aof" in waits:
        need_waitaof()
    settings = {"shutdown_timeout": 2, "batch_size": 1, **waits}
    async with (
        running_workers(mortal.url, PREFIX, **settings) as (worker,),
        Redis.from_url(mortal.url) as redis,
    ):
        await publish(mortal.url, "resp_1", *[delta(n, "x") for n in range(2000)])
        await hang_with_a_batch_in_hand(mortal, worker, redis)
        assert await worker.stop() == 0
        assert worker.has_logged("worker stopped")
        assert [line for line in worker.lines() if "exception" in line] == []


async def test_a_second_signal_ends_a_worker_at_once(mortal: MortalServer) -> None:
    """A second SIGTERM ends a worker at once, before its shutdown timeout."""
    async with (
        running_workers(mortal.url, PREFIX, shutdown_timeout=60, batch_size=1) as (worker,),
        Redis.from_url(mortal.url) as redis,
    ):
        await publish(mortal.url, "resp_1", *[delta(n, "x") for n in range(2000)])

        def has_left() -> bool:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
            return worker.process.returncode is not None

        await hang_with_a_batch_in_hand(mortal, worker, redis)
        await wait_until(lambda: "away" in troubles(worker), 60, message="the worker is stuck")
        await wait_until(has_left, message="the worker has left after repeated signals")
        assert worker.process.returncode == 128 + signal.SIGTERM
