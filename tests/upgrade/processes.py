"""Run workers and relays of a release or of this tree, and read messages with a release's library."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tests.relays import SECRETS
from tests.upgrade.release import environment, installed
from tests.waiting import wait_until
from tests.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from redis.asyncio import Redis

Program = Literal["worker", "relay"]


class Version(NamedTuple):
    """A release, or this tree."""

    name: str
    packages: Path | None = None
    """The folder of the installed release; None for this tree."""


def release(name: str) -> Version:
    """Return a release, built and installed."""
    return Version(name, installed(name))


NOW = Version("now")


class Side:
    """A server and a prefix on which programs of any version run.

    Args:
        redis: A client of the server.
        redis_url: The server's URL.
        prefix: The prefix of all keys.
        folder: The folder for logs, and for `alerts.toml` if relays are started.
        settings: The settings of all programs.
    """

    def __init__(self, redis: Redis, redis_url: str, prefix: str, folder: Path, **settings: object) -> None:
        self.redis = redis
        self.prefix = prefix
        self.folder = folder
        self._environment = {
            **SECRETS,
            "REDIS_URL": redis_url,
            "DELTALOOM_PREFIX": prefix,
            "DELTALOOM_LOG_FORMAT": "json",
            **{f"DELTALOOM_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._started = 0

    @asynccontextmanager
    async def running(self, version: Version, program: Program) -> AsyncIterator[WorkerProcess]:
        """Run a worker or a relay. Unless killed within the block, it must end with exit code 0."""
        self._started += 1
        log = self.folder / f"{self._started}-{version.name}-{program}.log"
        arguments = () if program == "worker" else ("--config", str(self.folder / "alerts.toml"))
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "error", "-m", "service", program, *arguments),
                env={**environment(version.packages), **self._environment},
                cwd=version.packages,
                stderr=stderr,
            )
        started = WorkerProcess(process, log)
        try:
            await wait_until(
                partial(started.has_logged, f"{program} started"), 30, message=f"{log.stem} starts"
            )
            yield started
            if process.returncode is None:
                assert await started.stop() == 0, started.lines()[-10:]
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def kill(program: WorkerProcess) -> None:
    """Kill the process, as the kernel does when memory is short."""
    program.process.kill()
    await program.process.wait()


_READ = """
import json, sys
import deltaloom
rejected = []
for name, message in json.load(sys.stdin):
    try:
        getattr(deltaloom, name).model_validate_json(message)
    except ValueError:
        rejected.append(message)
json.dump(rejected, sys.stdout)
"""


async def rejected_by(version: Version, messages: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Parse messages, given as (model, JSON), with a version's library. Return those that it rejects."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _READ),
        env=environment(version.packages),
        cwd=version.packages,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate(json.dumps(messages).encode())
    assert process.returncode == 0, stderr.decode()
    return [json.loads(message) for message in json.loads(stdout)]
