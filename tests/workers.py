"""Workers for integration tests, in processes of their own or in this one, and readers of their outputs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from deltaloom import GROUP, AssembledText, DeadLetter, ModerationAlert, StreamNames
from service.apps.worker_app import WorkerApp
from service.settings import Settings
from tests import fork_server
from tests.streams import entries
from tests.waiting import wait_until

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

    from tests.fork_server import ForkedProcess


def logged(text: str) -> list[dict[str, Any]]:
    """Return the parsed lines of a log, without an incomplete last one."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@dataclass(frozen=True)
class WorkerProcess:
    """A worker process and its log."""

    process: ForkedProcess | Process
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines that it has logged so far."""
        return logged(self.log.read_text())

    def has_logged(self, event: str) -> bool:
        """Return whether it has logged this event."""
        return any(line["event"] == event for line in self.lines())

    async def stop(self) -> int:
        """Stop the process by SIGTERM, and return its exit code.

        Raises:
            AssertionError: the process does not stop within a minute; the message has the end of its log.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), 60)
        except TimeoutError:
            raise AssertionError(f"the worker does not stop: {self.log.read_text()[-4000:]}") from None

    async def kill(self) -> None:
        """Kill the process by SIGKILL, and wait until it has ended."""
        self.process.kill()
        await self.process.wait()

    def freeze(self) -> None:
        """Suspend the process by SIGSTOP, until it is thawed or killed."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the process by SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def running_workers(
    redis_url: str, prefix: str, count: int = 1, **settings: object
) -> AsyncIterator[list[WorkerProcess]]:
    """Run `count` workers with these settings; stop them at the end, and assert exit code 0."""
    async with beginning_workers(redis_url, prefix, count, **settings) as workers:
        for worker in workers:
            await wait_until(partial(worker.has_logged, "worker started"), 60, message="the worker starts")
        yield workers


@asynccontextmanager
async def beginning_workers(
    redis_url: str, prefix: str, count: int = 1, **settings: object
) -> AsyncIterator[list[WorkerProcess]]:
    """Run workers like `running_workers`, but without waiting until they have started."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DELTALOOM_")},
        "REDIS_URL": redis_url,
        "DELTALOOM_PREFIX": prefix,
        "DELTALOOM_LOG_FORMAT": "json",
        "DELTALOOM_BLOCK_MS": "200",  # a stopping worker waits for its last read
        **{f"DELTALOOM_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with TemporaryDirectory() as folder:
        workers = [_start(Path(folder, f"{n}.log"), environment) for n in range(count)]
        try:
            yield workers
            codes = [await worker.stop() for worker in workers if worker.process.returncode is None]
            assert codes == [0] * len(codes), [worker.log.read_text()[-2000:] for worker in workers]
        finally:
            for worker in workers:
                if worker.process.returncode is None:
                    await worker.kill()


def _start(log: Path, environment: dict[str, str]) -> WorkerProcess:
    with log.open("wb") as stderr:
        process = fork_server.start("worker", env=environment, stdout=None, stderr=stderr)
    return WorkerProcess(process, log)


@asynccontextmanager
async def workers_in_process(
    redis_url: str, prefix: str, count: int = 1, **settings: object
) -> AsyncIterator[list[WorkerApp]]:
    """Run `count` workers in this process; stop them at the end, and assert that none has failed.

    This takes less time than `running_workers`, which is for tests of signals, crashes, exit codes, log lines
    and the isolation of processes.
    """
    given: dict[str, Any] = {"redis_url": redis_url, "prefix": prefix, "block_ms": 50, **settings}
    workers = [WorkerApp(Settings(**given)) for _ in range(count)]
    async with serving(workers):
        yield workers


@asynccontextmanager
async def serving(workers: Sequence[WorkerApp]) -> AsyncIterator[None]:
    """Run these workers in this process; stop them at the end, and assert that none has failed."""
    tasks = [asyncio.create_task(worker.serve()) for worker in workers]
    try:
        await asyncio.gather(*(worker.start() for worker in workers))
        yield
    finally:
        for worker in workers:
            worker.stop()
        reasons = await asyncio.gather(*tasks)
    assert [reason.error for reason in reasons] == [None] * len(workers)


async def settled(redis: Redis, prefix: str) -> bool:
    """Return whether all entries are acknowledged, and no closed text waits to be settled."""
    names = StreamNames(prefix)
    for group in await redis.xinfo_groups(names.deltas):
        if group["name"] == GROUP.encode():
            waiting: int = await redis.zcard(names.name("waiting"))
            return group["lag"] == 0 and group["pending"] == 0 and waiting == 0
    return False


async def wait_until_settled(redis: Redis, prefix: str, timeout: float = 60) -> None:
    """Wait until no entry is left to process, and no closed text waits to be settled."""
    await wait_until(lambda: settled(redis, prefix), timeout, message="everything is read and finished")


async def texts(redis: Redis, prefix: str) -> list[AssembledText]:
    """Return the finished texts, in the order in which they came out."""
    written = await entries(redis, StreamNames(prefix).assembled)
    return [AssembledText.model_validate_json(fields[b"__data__"]) for _, fields in written]


async def alerts(redis: Redis, prefix: str) -> list[ModerationAlert]:
    """Return the alerts, in the order in which they came out."""
    written = await entries(redis, StreamNames(prefix).alerts)
    return [ModerationAlert.model_validate_json(fields[b"__data__"]) for _, fields in written]


async def dead_letters(redis: Redis, prefix: str) -> list[DeadLetter]:
    """Return the dead letters, in the order in which they came out."""
    written = await entries(redis, StreamNames(prefix).dead_letters)
    return [
        DeadLetter.model_validate({name.decode(): value.decode() for name, value in fields.items()})
        for _, fields in written
    ]


async def counts(redis: Redis, prefix: str) -> dict[str, int]:
    """Return the counts of events without effect, by type, and of late events."""
    fields = cast("dict[bytes, bytes]", await redis.hgetall(StreamNames(prefix).name("counts")))
    return {name.decode(): int(value) for name, value in fields.items()}
