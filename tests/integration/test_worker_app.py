"""Tests of workers inside the test's process: they start, serve, stop, and leave the process as it was."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog
from structlog.testing import capture_logs

from deltaloom import GROUP, Partitions, StreamNames
from embedded.free_ports import free_port
from service.apps.worker_app import ExitReason, WorkerApp
from service.settings import Settings
from service.storage.state_format import FORMAT, StateFormatError
from tests.bench import delta, done
from tests.streams import entries
from tests.waiting import wait_until
from tests.workers import texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

NEWER: Any = {
    "version": str(FORMAT + 1),
    "min_reader": str(FORMAT + 1),
    "written_by": "deltaloom-worker 9.0.0",
}


async def publish(redis: Redis, names: StreamNames, *responses: str) -> None:
    """Publish a refusal in three entries for each response."""
    for response in responses:
        for event in (delta(1, "No"), delta(2, "."), done("No.")):
            await redis.xadd(names.deltas, {"event": json.dumps(event), "response_id": response})


async def consumers(redis: Redis, names: StreamNames) -> set[str]:
    """Return the names of the group's consumers."""
    return {each["name"].decode() for each in await redis.xinfo_consumers(names.deltas, GROUP)}


def process_state() -> dict[str, Any]:
    """Return the process's signal handlers, garbage collector settings, and configured loggers."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.Logger.manager.loggerDict)]
    configured = {each.name: (each.level, list(each.handlers), list(each.filters)) for each in loggers}
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "garbage": (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()),
        "structlog": structlog.get_config(),
        "logging": {name: found for name, found in configured.items() if found != (logging.NOTSET, [], [])},
    }


async def test_a_worker_serves_and_leaves_the_process_as_it_was(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A worker in a test's process writes its texts, leaves nothing pending, and changes no setting."""
    names, before = StreamNames(prefix), process_state()
    async with workers_in_process(redis_url, prefix):
        await publish(redis, names, "resp_1")
        await wait_until_settled(redis, prefix)
        assert process_state() == before
    assert process_state() == before
    assert [(text.response_id, text.text, text.integrity) for text in await texts(redis, prefix)] == [
        ("resp_1", "No.", "verified")
    ]
    assert (await redis.xpending(names.deltas, GROUP))["pending"] == 0
    assert await consumers(redis, names) == set()


async def test_two_workers_share_a_process(redis: Redis, redis_url: str, prefix: str) -> None:
    """Two workers in one process read as two consumers. Each text comes out once, nothing stays pending."""
    names, responses = StreamNames(prefix), [f"resp_{number}" for number in range(50)]
    async with (
        workers_in_process(redis_url, prefix, consumer="one", batch_size=5),
        workers_in_process(redis_url, prefix, consumer="two", batch_size=5),
    ):

        async def both_wait() -> bool:
            return bool((await redis.info("clients"))["blocked_clients"] == 2)

        await wait_until(both_wait, message="both workers wait for entries")
        await publish(redis, names, *responses)
        await wait_until_settled(redis, prefix)
        assert await consumers(redis, names) == {"one", "two"}
    assert sorted(str(text.response_id) for text in await texts(redis, prefix)) == sorted(responses)
    assert (await redis.xpending(names.deltas, GROUP))["pending"] == 0
    assert await consumers(redis, names) == set()


async def test_a_worker_serves_on_when_another_one_in_its_process_stops(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """Workers in one process share nothing, so the stop of one does not end the reads of another."""
    names = StreamNames(prefix)
    async with workers_in_process(redis_url, prefix, consumer="stays"):
        async with workers_in_process(redis_url, prefix, consumer="goes"):
            await publish(redis, names, "resp_1")
            await wait_until_settled(redis, prefix)
        await publish(redis, names, "resp_2")
        await wait_until_settled(redis, prefix)
    assert [text.response_id for text in await texts(redis, prefix)] == ["resp_1", "resp_2"]


class Failing:
    """A worker with two partitions, and the task that serves them until one fails."""

    def __init__(self, redis: Redis, prefix: str, worker: WorkerApp) -> None:
        self.redis = redis
        self.wrong, self.right = Partitions(2, prefix).all
        self.worker = worker
        self.serving = asyncio.create_task(worker.serve())

    async def fail(self) -> None:
        """Give one partition a state that the worker cannot read."""
        await self.redis.hset(self.wrong.name("format"), mapping=NEWER)

    async def assert_failed(self) -> None:
        """Assert that the worker ends with the reason, and has left both groups."""
        reason = await asyncio.wait_for(self.serving, 30)
        assert isinstance(reason.error, StateFormatError)
        assert self.wrong.name("format") in str(reason.error)
        for names in (self.wrong, self.right):
            if await self.redis.exists(names.deltas):
                assert await consumers(self.redis, names) == set()


@asynccontextmanager
async def failing(redis: Redis, redis_url: str, prefix: str) -> AsyncIterator[Failing]:
    """Provide a worker that is to fail; stop it at the end if it has not failed."""
    settings = Settings(redis_url=redis_url, prefix=prefix, partitions=2, claim_time=1, block_ms=50)
    stage = Failing(redis, prefix, WorkerApp(settings))
    try:
        yield stage
    finally:
        stage.worker.stop()
        await stage.serving


async def test_a_partition_that_cannot_start_ends_the_worker(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A worker ends with the error of the partition that could not start, and logs no orderly stop."""
    async with failing(redis, redis_url, prefix) as stage:
        await stage.fail()
        with capture_logs() as lines:
            await asyncio.wait_for(stage.worker.start(), 30)
            await stage.assert_failed()
    assert "worker stopped" not in {line["event"] for line in lines}


async def test_a_partition_that_fails_later_ends_the_worker(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A worker that serves ends with the error of the partition that failed, after the other one's texts."""
    async with failing(redis, redis_url, prefix) as stage:
        await stage.worker.start()
        await publish(redis, stage.right, "resp_1")
        await wait_until(lambda: redis.xlen(stage.right.assembled), message="the text is written")
        assert not stage.serving.done()
        await stage.fail()
        await stage.assert_failed()
    assert len(await entries(redis, stage.right.assembled)) == 1


async def test_the_first_reason_counts(redis: Redis, redis_url: str, prefix: str) -> None:
    """Further calls of `stop` do nothing: a failure during a requested stop does not change its reason."""
    worker = WorkerApp(Settings(redis_url=redis_url, prefix=prefix, block_ms=50))
    await worker.start()
    worker.stop()
    worker.stop(ExitReason(RuntimeError("too late")))
    with capture_logs() as lines:
        assert await asyncio.wait_for(worker.serve(), 30) == ExitReason()
    worker.stop()
    assert [line["event"] for line in lines].count("worker stopped") == 1
    assert await consumers(redis, StreamNames(prefix)) == set()


async def test_a_worker_without_a_server_can_be_stopped() -> None:
    """`start` waits for the server. A stop ends it, and the log has no start that did not happen."""
    with capture_logs() as lines:
        worker = WorkerApp(Settings(redis_url=f"redis://127.0.0.1:{free_port()}"))
        starting = asyncio.create_task(worker.start())
        away = "redis unavailable, retrying"
        await wait_until(lambda: away in {line["event"] for line in lines}, message="it waits for its server")
        assert not starting.done()
        worker.stop()
        await asyncio.wait_for(starting, 30)
        assert await asyncio.wait_for(worker.serve(), 30) == ExitReason()
    assert "worker started" not in {line["event"] for line in lines}
