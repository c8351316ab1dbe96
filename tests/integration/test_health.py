"""Test what probes say about real workers while their loop, their process or their server fails.

`test_table_of_failures` prints the table of docs/operations.md.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest
from redis.asyncio import Redis

from service.observability.heartbeat_file import STALE_AFTER
from tests.mortal import MortalServer
from tests.probes import NO_ANSWER, Probes
from tests.sentinel_servers import SERVICE, running_sentinels
from tests.waiting import wait_until
from tests.workers import beginning_workers, running_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.workers import WorkerProcess

SERVES = (200, 200, True)
WAITS = (200, 503, True)
"""Alive, and not ready: a restart would not help."""
STUCK = (NO_ANSWER, NO_ANSWER, False)

BLOCKER = """
import time
from typing import Literal
from deltaloom.events import Event
from handlers.core.routing import Handler, Route

class Blocks(Event):
    type: Literal["test.blocks"]

def block(event, origin):
    time.sleep(3600)

handler = Handler("blocker", (Route(Blocks, block),))
"""
"""A module with a handler that blocks the event loop."""


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[MortalServer]:
    """Yield a server that the test may stop."""
    server = await MortalServer(tmp_path).start()
    yield server
    await server.kill()


async def test_a_worker_waits_for_redis(mortal: MortalServer, prefix: str, tmp_path: Path) -> None:
    """While Redis is away, a worker is alive and not ready; when it is back, ready again."""
    probes = Probes.of(tmp_path)
    await mortal.kill()
    async with beginning_workers(mortal.url, prefix, **probes.settings):
        await wait_until(lambda: _sees(probes, WAITS), 60)
        assert await probes.status("/startupz") == 503
        await mortal.start()
        await wait_until(lambda: _sees(probes, SERVES), 30)
        assert await probes.status("/startupz") == 200
        await mortal.kill()
        await wait_until(lambda: _sees(probes, WAITS), 30)
        status = await probes.json("/statusz")
        assert status["worker"]["partitions"][0]["waits_for_redis"]
        assert status["settings"]["redis"] == mortal.url
        await mortal.start()
        await wait_until(lambda: _sees(probes, SERVES), 30)
    assert not probes.heartbeat.exists()


@pytest.mark.slow
async def test_one_of_several_processes_freezes(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """The parent tells about all; a frozen process makes the whole unhealthy, and is named."""
    probes = Probes.of(tmp_path)
    async with running_workers(redis_url, prefix, processes=2, **probes.settings) as (worker,):
        await wait_until(lambda: _sees(probes, SERVES), 30)
        status = await probes.json("/statusz")
        assert [each["process"] for each in status["processes"]] == [1, 2]
        assert [each["worker"]["partitions"][0]["lag"] for each in status["processes"]] == [0, 0]
        _, second = sorted(psutil.Process(worker.process.pid).children(), key=lambda child: child.pid)
        second.suspend()
        frozen_at = time.monotonic()
        await wait_until(lambda: _sees(probes, (503, 503, False)), 30)
        assert STALE_AFTER - 2 < time.monotonic() - frozen_at < STALE_AFTER + 5
        code, body = await probes.got("/livez")
        assert (code, body.startswith("process ")) == (503, True)
        assert "no sign of life for" in body
        status = await probes.json("/statusz")
        assert [each.get("error") for each in status["processes"]].count("no answer") == 1
        second.resume()
        await wait_until(lambda: _sees(probes, SERVES), 30)


async def _sees(probes: Probes, expected: tuple[int, int, bool]) -> bool:
    return await probes.seen() == expected


async def test_a_handler_blocks_the_loop(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Neither HTTP nor the heartbeat goes on while the loop is blocked."""
    probes = Probes.of(tmp_path)
    with a_blocking_handler(tmp_path):
        async with beginning_workers(redis_url, prefix, **probes.settings) as (worker,):
            await wait_until(lambda: _sees(probes, SERVES), 60)
            await redis.xadd(f"{prefix}:deltas", {"event": '{"type":"test.blocks"}'})
            await wait_until(lambda: _sees(probes, STUCK), 30)
            await worker.kill()
    await redis.delete(f"{prefix}:deltas")


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_table_of_failures(mortal: MortalServer, tmp_path: Path) -> None:
    """Print what each probe says of each failure, after how many seconds: the table of docs/operations.md."""
    rows = []
    for name, fail, mend, expected, settles in (
        ("SIGSTOP of the worker", "freeze", "thaw", STUCK, 3),
        ("a handler blocks the loop", "block", None, STUCK, 3),
        ("Redis stopped", "kill", "start", WAITS, 40),
        ("Redis hangs (SIGSTOP)", "hang", "go_on", WAITS, 75),
        ("Redis flushed", "flush", None, SERVES, 20),
    ):
        folder = tmp_path / fail
        folder.mkdir()
        probes = Probes.of(folder)
        with a_blocking_handler(folder):
            async with beginning_workers(mortal.url, fail, **probes.settings) as (worker,):
                await wait_until(partial(_sees, probes, SERVES), 60)
                began = time.monotonic()
                await _do(fail, worker, mortal, fail)
                changed = await _changes(probes, began, expected, settles)
                rows.append(f"| {name} | {' | '.join(changed)} |")
                if mend:
                    await _do(mend, worker, mortal, fail)
                    await wait_until(partial(_sees, probes, SERVES), 60)
                else:
                    await worker.kill()
    sys.stdout.write("\n".join(["", *rows, ""]))


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_rows_of_failovers(tmp_path: Path) -> None:
    """Print what each probe says while sentinels replace a master: the last rows of the same table."""
    rows = []
    async with running_sentinels(tmp_path) as group:
        url = f"redis+sentinel://{group.addresses}/{SERVICE}/0"
        for name, fail in (("Redis failed over", "kill"), ("Redis hangs and is failed over", "hang")):
            folder = tmp_path / fail
            folder.mkdir()
            probes = Probes.of(folder)
            async with beginning_workers(url, fail, **probes.settings):
                await wait_until(partial(_sees, probes, SERVES), 60)
                dead = await group.master()
                began = time.monotonic()
                if fail == "kill":
                    await dead.kill()
                else:
                    dead.hang()
                changed = await _changes(probes, began, SERVES, 40)
                rows.append(f"| {name} | {' | '.join(changed)} |")
                assert await group.master() is not dead
            if fail == "kill":
                await group.start(dead)
            else:
                dead.go_on()
    sys.stdout.write("\n".join(["", *rows, ""]))


async def _changes(
    probes: Probes, began: float, expected: tuple[int, int, bool], settles: float
) -> list[str]:
    """Watch the probes until they are as expected, and `settles` seconds more; return what they said when."""
    said: list[list[tuple[int, float]]] = [[], [], []]
    until: float | None = None
    seen = (NO_ANSWER, NO_ANSWER, False)
    while until is None or time.monotonic() < until:
        seen = await probes.seen()
        now = time.monotonic()
        assert now - began < 120, f"{seen}, not {expected}"
        for column, value in zip(said, seen, strict=True):
            if not column or column[-1][0] != value:
                column.append((value, now - began))
        if seen == expected and until is None:
            until = now + settles
    assert seen == expected
    return [
        ", ".join(
            f"{_word(value)}{f' after {after:.0f} s' if n else ''}" for n, (value, after) in enumerate(column)
        )
        for column in said
    ]


def _word(value: int) -> str:
    if isinstance(value, bool):
        return "healthy" if value else "unhealthy"
    return str(value) if value != NO_ANSWER else "no answer"


async def _do(what: str, worker: WorkerProcess, mortal: MortalServer, prefix: str) -> None:
    match what:
        case "freeze" | "thaw":
            getattr(worker, what)()
        case "kill" | "start":
            await getattr(mortal, what)()
        case "hang" | "go_on":
            getattr(mortal, what)()
        case "block":
            async with Redis.from_url(mortal.url) as redis:
                await redis.xadd(f"{prefix}:deltas", {"event": '{"type":"test.blocks"}'})
        case "flush":
            async with Redis.from_url(mortal.url) as redis:
                await redis.flushall()


@contextmanager
def a_blocking_handler(folder: Path) -> Iterator[None]:
    """Let the workers that begin within the block find an installed handler that blocks."""
    metadata = folder / "blocker-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: blocker\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[deltaloom.handlers]\nblocker = blocker:handler\n")
    (folder / "blocker.py").write_text(BLOCKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield
