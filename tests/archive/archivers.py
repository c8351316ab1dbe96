"""Archivers for tests, in this process or in one of their own, and producers of outputs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archive.archive_app import ArchiveApp
from archive.archive_settings import ArchiveSettings
from tests.archive.made import fields_of
from tests.service.cli.command import environment

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis


def settings_of(redis_url: str, prefix: str, url: str, **given: Any) -> ArchiveSettings:
    """Return settings for a test."""
    quick = {"block_ms": 50, "claim_time": 1, "shutdown_timeout": 5}
    return ArchiveSettings(redis_url=redis_url, prefix=prefix, archive_url=url, **quick | given)


@asynccontextmanager
async def archiving(settings: ArchiveSettings) -> AsyncIterator[ArchiveApp]:
    """Run an archiver in this process."""
    app = ArchiveApp(settings)
    starting = asyncio.create_task(app.start())
    try:
        yield app
    finally:
        starting.cancel()
        await asyncio.wait({starting})
        await app.stop()


@dataclass(frozen=True)
class ArchiverProcess:
    """An archiver in a process of its own, and its log."""

    process: Process
    log: Path

    def has_started(self) -> bool:
        """Return whether it reads."""
        return '"archive started"' in self.log.read_text()

    async def kill(self) -> None:
        """Kill the process, if it has not ended, and wait for its end."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> int:
        """Stop the process by SIGTERM; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


async def start_process(redis_url: str, prefix: str, url: str, log: Path, **settings: Any) -> ArchiverProcess:
    """Start `deltaloom archive run`."""
    given = {f"DELTALOOM_{name.upper()}": str(value) for name, value in settings.items()}
    quick = {
        "DELTALOOM_ARCHIVE_URL": url,
        "DELTALOOM_ARCHIVE_BATCH": "50",
        "DELTALOOM_BLOCK_MS": "50",
        "DELTALOOM_CLAIM_TIME": "1",
        "DELTALOOM_LOG_FORMAT": "json",
    }
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "archive", "run"),
            env=environment(redis_url, prefix) | quick | given,
            stdout=file,
            stderr=file,
        )
    return ArchiverProcess(process, log)


async def add_texts(redis: Redis, stream: str, first: int, count: int) -> None:
    """Add texts with numbers from `first` on to a stream, as workers do."""
    pipeline = redis.pipeline(transaction=False)
    for number in range(first, first + count):
        names = fields_of(id=f"text_{number}", response_id=f"resp_{number}", text=f"No {number}.")
        pipeline.xadd(stream, dict(zip(names[::2], names[1::2], strict=True)))
    await pipeline.execute()


async def add(redis: Redis, stream: str, message: Any) -> None:
    """Add an entry with any message to a stream."""
    await redis.xadd(stream, {"__data__": json.dumps(message)})


async def pending(redis: Redis, stream: str, group: str = "archive") -> tuple[int, int | None]:
    """Return the numbers of entries of a group that are pending, and unread."""
    for info in await redis.xinfo_groups(stream):
        if info["name"] == group.encode():
            return info["pending"], info["lag"]
    return 0, None
