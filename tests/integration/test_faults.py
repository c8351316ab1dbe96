"""The server dies, hangs, is full, forgets, or takes no writes: the worker says so once, and goes on."""

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
from tests.waiting import wait_until
from tests.workers import WorkerProcess, running_workers, texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PREFIX = "deltaloom"
NAMES = StreamNames(PREFIX)


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[MortalServer]:
    """A server of this test alone."""
    server = MortalServer(tmp_path)
    yield await server.start()
    await server.kill()


async def publish(url: str, response_id: str, *events: object) -> None:
    """One entry an event."""
    async with Redis.from_url(url) as redis:
        for event in events:
            await redis.xadd(NAMES.deltas, {"event": json.dumps(event), "response_id": response_id})


async def finished(url: str) -> list[str]:
    """The texts that have come out."""
    async with Redis.from_url(url) as redis:
        return [text.text for text in await texts(redis, PREFIX)]


def troubles(worker: WorkerProcess) -> list[str]:
    """What a worker has said of the server, a word a line."""
    words = {"redis is away, waiting for it": "away", "redis is back": "back"}
    return [words[line["event"]] for line in worker.lines() if line["event"] in words]


async def comes_out(url: str, text: str) -> None:
    """Wait until a text has come out, once."""

    async def came_out() -> bool:
        return text in await finished(url)

    await wait_until(came_out, 30, message=f"{text} comes out")
    assert (await finished(url)).count(text) == 1


async def test_the_server_is_killed_and_starts_again(mortal: MortalServer) -> None:
    """A restart of Redis must need nobody, lose nothing, and fill no log."""
    async with running_workers(mortal.url, PREFIX) as (worker,):
        await publish(mortal.url, "resp_1", delta(1, "be"))
        await mortal.kill()
        await wait_until(lambda: "away" in troubles(worker), 30, message="the worker says it is away")
        await mortal.start()
        await publish(mortal.url, "resp_1", delta(2, "fore"), done("before"))
        await comes_out(mortal.url, "before")
        assert not any("exception" in line for line in worker.lines())
        assert len(troubles(worker)) <= 6, "one line a state, not one an attempt"
        assert troubles(worker)[-1] == "back"


async def test_the_server_hangs_and_wakes_up(mortal: MortalServer) -> None:
    """A server that answers nothing is as good as none: no traceback, no loss, no twice."""
    async with running_workers(mortal.url, PREFIX) as (worker,):
        await publish(mortal.url, "resp_1", delta(1, "a"))
        mortal.hang()
        await wait_until(lambda: "away" in troubles(worker), 60, message="the worker says it is away")
        mortal.go_on()
        await publish(mortal.url, "resp_1", delta(2, "b"), done("ab"))
        await comes_out(mortal.url, "ab")
        assert not any("exception" in line for line in worker.lines())


async def test_the_server_is_out_of_memory(mortal: MortalServer) -> None:
    """A script that runs on half way at the memory limit would acknowledge what it has not stored."""
    async with running_workers(mortal.url, PREFIX) as (worker,), Redis.from_url(mortal.url) as redis:
        await publish(mortal.url, "resp_1", delta(1, "a"))
        worker.process.send_signal(signal.SIGSTOP)
        await publish(mortal.url, "resp_1", delta(2, "b"), done("ab"))
        await redis.config_set("maxmemory", "1")
        worker.process.send_signal(signal.SIGCONT)
        await wait_until(lambda: "away" in troubles(worker), 30, message="the worker says it is full")
        assert await finished(mortal.url) == []
        await redis.config_set("maxmemory", "0")
        await comes_out(mortal.url, "ab")


async def test_what_a_worker_holds_is_kept_and_given_back_without_memory(mortal: MortalServer) -> None:
    """Others would take it away from a live worker, and wait in vain for one that has stopped."""
    async with Redis.from_url(mortal.url) as redis:
        worker, other = Bench(redis, PREFIX).consumer("one"), Bench(redis, PREFIX).consumer("other")
        await publish(mortal.url, "resp_1", delta(1, "a"), done("a"))
        in_hand: list[Any] = [entry.id for entry in await worker.read()]
        await redis.xclaim(NAMES.deltas, GROUP, "one", 0, in_hand, idle=100_000, justid=True)
        await redis.config_set("maxmemory", "1")
        await worker.group.keep(in_hand)
        pending: Any = await redis.xpending_range(NAMES.deltas, GROUP, "-", "+", 10)
        assert all(each["time_since_delivered"] < 100_000 for each in pending)
        assert await worker.group.leave() == 2
        await redis.config_set("maxmemory", "0")
        await other.reclaimer.reclaim()
        assert await finished(mortal.url) == ["a"]


@pytest.mark.parametrize("loss", ["flushall", "group", "stream"])
async def test_the_stream_or_its_group_is_lost(mortal: MortalServer, loss: str) -> None:
    """FastStream would stop for good; a worker that runs for months makes the group again, at 0."""
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
        assert not any("exception" in line for line in worker.lines())


async def test_the_server_takes_no_writes(mortal: MortalServer) -> None:
    """After a failover the old master is a replica: the worker waits instead of losing its batch."""
    async with running_workers(mortal.url, PREFIX) as (worker,), Redis.from_url(mortal.url) as redis:
        worker.process.send_signal(signal.SIGSTOP)
        await publish(mortal.url, "resp_1", delta(1, "a"), done("a"))
        await redis.replicaof("127.0.0.1", "1")
        worker.process.send_signal(signal.SIGCONT)
        await wait_until(lambda: "away" in troubles(worker), 30, message="the worker says it is read-only")
        await redis.replicaof("NO", "ONE")
        await comes_out(mortal.url, "a")
        assert not any("exception" in line for line in worker.lines())


async def test_scripts_are_flushed_and_connections_killed(mortal: MortalServer) -> None:
    """Both happen in the life of a server; neither may show in the results."""
    async with (
        running_workers(mortal.url, PREFIX, claim_time=2) as (worker,),
        Redis.from_url(mortal.url) as redis,
    ):
        for number in range(5):
            await publish(mortal.url, f"resp_{number}", delta(1, f"{number}"), done(f"{number}"))
            await redis.script_flush()
            await redis.client_kill_filter(_type="normal", skipme=True)
            await comes_out(mortal.url, f"{number}")
        assert not any("exception" in line for line in worker.lines())


async def test_a_worker_that_is_told_to_stop_leaves_nothing_pending(mortal: MortalServer) -> None:
    """A rolling restart under load should delay nothing, and lose nothing."""
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
    """Let the server answer nothing any more in a moment in which the worker waits for it."""

    async def is_stopped_with_a_batch_in_hand() -> bool:
        worker.process.send_signal(signal.SIGSTOP)
        (group,) = await redis.xinfo_groups(NAMES.deltas)
        if group["pending"]:
            return True
        worker.process.send_signal(signal.SIGCONT)
        return False

    await wait_until(is_stopped_with_a_batch_in_hand, message="the worker has something in hand")
    mortal.hang()
    worker.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("waits", [{}, {"wait_aof": True}], ids=["ahead", "one by one"])
async def test_a_worker_stops_while_the_server_hangs(mortal: MortalServer, waits: dict[str, Any]) -> None:
    """A worker that is killed because it does not stop looks like one that has failed."""
    settings = {"shutdown_timeout": 2, "batch_size": 1, **waits}
    async with (
        running_workers(mortal.url, PREFIX, **settings) as (worker,),
        Redis.from_url(mortal.url) as redis,
    ):
        await publish(mortal.url, "resp_1", *[delta(n, "x") for n in range(2000)])
        await hang_with_a_batch_in_hand(mortal, worker, redis)
        assert await worker.stop() == 0
        assert worker.said("worker stopped")
        assert not any("exception" in line for line in worker.lines())


async def test_a_second_signal_ends_a_worker_at_once(mortal: MortalServer) -> None:
    """Whoever asks twice does not want to wait for a server that hangs."""
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
        await wait_until(has_left, 5, message="the worker, asked again and again, has left")
        assert worker.process.returncode == 128 + signal.SIGTERM
