"""The stage: server, worker, relay, producers, observer and webhook receiver of one run.

All of them are stopped at the end of the run, even if it fails.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.exceptions import RedisError

from deltaloom.streams import StreamNames
from demo.browser import open_page
from demo.observer import all_read, follow, settled
from demo.pacing import publications
from demo.process import ServiceProcess
from demo.producer import replay
from demo.receiver import Webhooks
from demo.tapping import TapStage
from demo.verification import problems
from embedded.embedded_server import EmbeddedServer
from embedded.free_ports import HOST, reserved_port
from handlers import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from demo.audience import Audience
    from demo.clock import Clock
    from demo.progress import Progress

_IDLE_TIMEOUT = 3.0
"""Seconds after which a stream that was cut off is abandoned; longer at a slow pace."""
_GRACE = 40.0
"""Seconds for the worker and the relay to start, and to finish their pending work."""
_LOOK_EVERY = 0.03
_PAGE_SECONDS = 120.0
"""Seconds for which the console is kept after the last stream, unless Ctrl-C ends them."""


class StageError(RuntimeError):
    """The demo cannot continue: its worker, its relay or its server failed."""


def perform(
    progress: Progress,
    clock: Clock,
    audience: Audience,
    *,
    through_tap: bool = False,
    shows_console: bool = False,
) -> list[str]:
    """Run the programme; return the problems, followed by the end of the logs if there are any."""
    settings = {
        "DELTALOOM_HANDLERS": ",".join(BUILT_IN),
        "DELTALOOM_IDLE_TIMEOUT": str(_idle_timeout(clock)),
        "DELTALOOM_SWEEP_INTERVAL": "0.2",
        "DELTALOOM_BLOCK_MS": "200",
        "DELTALOOM_LOG_FORMAT": "pretty",
    }
    with ExitStack() as stage:
        folder = Path(stage.enter_context(tempfile.TemporaryDirectory(prefix="deltaloom-demo-")))
        server = stage.enter_context(EmbeddedServer())
        webhooks = stage.enter_context(closing(Webhooks()))
        settings["REDIS_URL"] = server.url
        relay = ("relay", "--config", str(webhooks.configure(folder / "alerts.toml")))
        processes = [
            ServiceProcess(("worker",), folder / "worker.log", settings),
            ServiceProcess(relay, folder / "relay.log", {**settings, **webhooks.environment}),
        ]
        tap = stage.enter_context(closing(TapStage(progress.streams))) if through_tap else None
        if tap is not None:
            progress.tapped = tap.response_ids
            own = tap.configure(folder / "upstreams.toml")
            processes.append(ServiceProcess(("tap",), folder / "tap.log", {**settings, **own}))
        if shows_console:
            port = stage.enter_context(reserved_port())
            listen = {"DELTALOOM_CONSOLE_LISTEN": f"{HOST}:{port}"}
            processes.append(ServiceProcess(("console",), folder / "console.log", {**settings, **listen}))
            open_page(port)
        for process in processes:
            stage.enter_context(process)
        try:
            wrong = asyncio.run(_perform(server.url, webhooks, tap, processes, progress, clock, audience))
            if shows_console and not wrong:
                time.sleep(_PAGE_SECONDS)
        except StageError as error:
            wrong = [str(error)]
        except RedisError as error:
            wrong = [f"the server went away: {error}"]
        for process in processes:
            process.ask_to_stop()
        if wrong:
            for process in processes:
                wrong += ["", f"The {process.name}'s last words:", *process.log_tail()]
        return wrong


def _idle_timeout(clock: Clock) -> float:
    """Return the worker's timeout in seconds."""
    return max(_IDLE_TIMEOUT, _IDLE_TIMEOUT / clock.pace)


async def _perform(
    redis_url: str,
    webhooks: Webhooks,
    tap: TapStage | None,
    processes: Sequence[ServiceProcess],
    progress: Progress,
    clock: Clock,
    audience: Audience,
) -> list[str]:
    names = StreamNames()
    async with (
        Redis.from_url(redis_url, decode_responses=True) as client,
        webhooks.taking(progress, clock),
        nullcontext() if tap is None else tap.sending(progress, clock),
    ):

        async def ready() -> bool:
            return await all_read(client, names) and (tap is None or await tap.is_listening())

        tasks = [
            asyncio.create_task(audience.watch(progress, clock)),
            asyncio.create_task(follow(client, names, progress, clock)),
        ]
        try:
            if not await _until(ready, _GRACE, processes, tasks):
                whose = "the worker and the relay" if tap is None else "the worker, the relay and the tap"
                raise StageError(f"{whose} did not begin to work within {_GRACE:g} s")
            clock.start()
            tapped = [] if tap is None else tap.streams
            producers = [
                replay(client, names, stream, progress, clock)
                for stream in progress.streams
                if stream not in tapped
            ]
            if tap is not None:
                producers += [tap.request(stream, progress, clock) for stream in tapped]
            tasks += map(asyncio.create_task, producers)

            async def over() -> bool:
                return progress.complete and await settled(client, names, progress)

            last = max(publications(stream)[-1].at for stream in progress.streams) / clock.pace
            over_in_time = await _until(over, last + _idle_timeout(clock) + _GRACE, processes, tasks)
            await asyncio.sleep(audience.lingers)
        finally:
            await _end(tasks)
    wrong = problems(progress) + ([] if tap is None else tap.wrong)
    if not over_in_time and not wrong:
        wrong.append("all came out as it should, but not all of it has been acknowledged")
    return wrong


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks repeatedly until they end: redis-py loses a cancellation that comes while it connects."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_LOOK_EVERY)
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until(
    condition: Callable[[], Awaitable[bool]],
    seconds: float,
    processes: Sequence[ServiceProcess],
    tasks: Sequence[asyncio.Task[None]],
) -> bool:
    """Wait for a condition; return False on a timeout. Raise errors of tasks and unexpected exits."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while not await condition():
        for task in tasks:
            if task.done():
                task.result()
        for process in processes:
            if process.exit_code is not None:
                raise StageError(f"the {process.name} ended by itself, with exit code {process.exit_code}")
        if clock() > deadline:
            return False
        await asyncio.sleep(_LOOK_EVERY)
    return True
