"""The stage: a server, a worker, producers and an observer, together for one run of the programme.

All of them are ended when it is over, however it ends.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.exceptions import RedisError

from deltaloom.streams import StreamNames
from handlers import BUILT_IN
from service.demo.check import problems
from service.demo.observer import follow, settled, worker_reads
from service.demo.pacing import publications
from service.demo.producer import replay
from service.demo.worker import WorkerProcess
from service.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from service.demo.audience import Audience
    from service.demo.clock import Clock
    from service.demo.progress import Progress

_IDLE_TIMEOUT = 3.0
"""Seconds after which a stream that was cut off is given up; longer at a slow pace."""
_GRACE = 20.0
"""Seconds that the worker may take to start, and to finish what it has."""
_LOOK_EVERY = 0.03


class StageError(RuntimeError):
    """The demo could not go on: its worker or its server failed."""


def perform(progress: Progress, clock: Clock, audience: Audience) -> list[str]:
    """Run the programme; returns what went wrong, and then the end of the worker's log."""
    idle_timeout = max(_IDLE_TIMEOUT, _IDLE_TIMEOUT / clock.pace)
    settings = {
        "DELTALOOM_HANDLERS": ",".join(BUILT_IN),
        "DELTALOOM_IDLE_TIMEOUT": str(idle_timeout),
        "DELTALOOM_SWEEP_INTERVAL": "0.2",
        "DELTALOOM_BLOCK_MS": "200",
        "DELTALOOM_LOG_FORMAT": "pretty",
    }
    with (
        tempfile.TemporaryDirectory(prefix="deltaloom-demo-") as folder,
        EmbeddedServer() as server,
        WorkerProcess(server.url, Path(folder) / "worker.log", settings) as worker,
    ):
        try:
            wrong = asyncio.run(_perform(server.url, worker, progress, clock, audience, idle_timeout))
        except StageError as error:
            wrong = [str(error)]
        except RedisError as error:
            wrong = [f"the server went away: {error}"]
        if wrong:
            wrong += ["", "The worker's last words:", *worker.last_words()]
        return wrong


async def _perform(
    redis_url: str,
    worker: WorkerProcess,
    progress: Progress,
    clock: Clock,
    audience: Audience,
    idle_timeout: float,
) -> list[str]:
    names = StreamNames()
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        tasks = [
            asyncio.create_task(audience.watch(progress, clock)),
            asyncio.create_task(follow(client, names, progress, clock)),
        ]
        try:
            if not await _until(lambda: worker_reads(client, names), _GRACE, worker, tasks):
                raise StageError(f"the worker did not begin to read within {_GRACE:g} s")
            clock.start()
            producers = [replay(client, names, stream, progress, clock) for stream in progress.streams]
            tasks += map(asyncio.create_task, producers)

            async def over() -> bool:
                return progress.complete and await settled(client, names, progress)

            last = max(publications(stream)[-1].at for stream in progress.streams) / clock.pace
            over_in_time = await _until(over, last + idle_timeout + _GRACE, worker, tasks)
            await asyncio.sleep(audience.lingers)
        finally:
            await _end(tasks)
    wrong = problems(progress)
    if not over_in_time and not wrong:
        wrong.append("all came out as it should, but the worker has not acknowledged all of the input")
    return wrong


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are done: redis-py loses a cancellation that comes while it connects."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_LOOK_EVERY)
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until(
    condition: Callable[[], Awaitable[bool]],
    seconds: float,
    worker: WorkerProcess,
    tasks: Sequence[asyncio.Task[None]],
) -> bool:
    """Wait for it; False if it took too long. What fails meanwhile is raised here."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while not await condition():
        for task in tasks:
            if task.done():
                task.result()
        if worker.exit_code is not None:
            raise StageError(f"the worker ended by itself, with exit code {worker.exit_code}")
        if clock() > deadline:
            return False
        await asyncio.sleep(_LOOK_EVERY)
    return True
