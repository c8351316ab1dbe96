"""Observe a process: the parts that it runs, its progress, and those to whom it tells about them.

The command creates the observation before the parts, and ends it after them: so `/livez` answers while a
worker waits for Redis, and until it has stopped.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from service import logs, under_way
from service.cancelling import cancel
from service.observability import heartbeat_file
from service.observability.heartbeat_file import Heartbeat, HeartbeatFile
from service.observability.liveness import LIMITS, Liveness
from service.observability.routes import Answer, HttpRequest, as_json, text
from service.observability.service_manager import ServiceManager
from service.settings import SettingsError, host_and_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import NoReturn

    from service.observability.http_server import HttpServer
    from service.observability.routes import Route
    from service.settings import Settings

_TURN_SECONDS = 1.0
"""Seconds between two turns of the loop that are recorded."""


class Observed(Protocol):
    """A part of the process that is observed, such as a worker or a relay."""

    @property
    def started(self) -> bool:
        """True once it has served for the first time."""
        ...

    def not_ready(self) -> list[str]:
        """Return a reason for each thing that keeps it from serving; empty if it serves."""
        ...

    async def status(self) -> dict[str, Any]:
        """Return its state for people, as JSON values, without secrets and without texts of events."""
        ...


class Observation:
    """The observation of this process. Others may add routes and parts to it.

    Args:
        settings: the settings of this process.
        number: number of this process, if its parent runs several and tells about all of them; None if it is
            the only one. One of several serves HTTP at a socket for its parent, and does not notify systemd.
    """

    def __init__(self, settings: Settings, number: int | None = None) -> None:
        self._settings = settings
        self._number = number
        self._owner = os.getpid() if number is None else os.getppid()
        self._file: HeartbeatFile | None = None
        self._manager = ServiceManager(os.environ if number is None else {})
        self._socket: Path | None = None
        self.parts: dict[str, Observed] = {}
        """The observed parts by name, such as `worker`."""
        self.liveness = Liveness(under_way.steps)
        self.routes: dict[str, Route] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/startupz": self._startupz,
        }
        """The routes of the HTTP server by path."""
        self._server: HttpServer | None = None
        self._turning: asyncio.Task[NoReturn] | None = None

    async def start(self) -> None:
        """Begin to observe, and serve HTTP if the settings say so.

        Raises:
            SettingsError: the address cannot be used.
        """
        if self._settings.http is not None:
            await self._serve(self._settings.http)
        self._open_file()
        self._turning = asyncio.create_task(self._turn())

    async def stop(self) -> None:
        """Stop serving and observing."""
        if self._turning is not None:
            await cancel(self._turning)
        if self._server is not None:
            await self._server.stop()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
        if self._file is not None:
            self._file.remove()

    def stopping(self) -> None:
        """Tell the service manager that the process stops."""
        self._manager.stopping()

    def stuck(self) -> list[str]:
        """Return a reason for each thing that is stuck."""
        return self.liveness.stuck(time.monotonic())

    def not_started(self) -> list[str]:
        """Return a line for each part that has not served yet."""
        if not self.parts:
            return ["starting"]
        return [f"{name}: starting" for name, part in self.parts.items() if not part.started]

    def not_ready(self) -> list[str]:
        """Return a line for each thing that keeps a part from serving, or a step from going on."""
        if not self.parts:
            return ["starting"]
        of_parts = [f"{name}: {reason}" for name, part in self.parts.items() for reason in part.not_ready()]
        return of_parts + self.liveness.waiting(time.monotonic())

    async def _serve(self, address: str) -> None:
        from service.observability.http_server import HttpServer  # noqa: PLC0415 - only then is aiohttp needed
        from service.observability.status import StatusGuard  # noqa: PLC0415 - as above

        self._server = HttpServer(self.routes)
        if self._number is not None:
            await self._serve_parent(self._server, self._number)
            return
        guard = StatusGuard(self._settings)

        async def statusz(request: HttpRequest) -> Answer:
            return guard.refusal(request) or await self._statusz(request)

        self.routes["/statusz"] = statusz
        await listen(self._server, address)

    async def _serve_parent(self, server: HttpServer, number: int) -> None:
        """Serve the parent process at a socket; without it, the parent tells only what the heartbeats say."""
        self.routes["/statusz"] = self._statusz
        try:
            self._socket = socket_of(self._owner, number)
            self._socket.unlink(missing_ok=True)
            await server.start_at(self._socket)
        except OSError as error:
            self._socket = None
            logs.logger().warning("http not started", error=str(error))

    def _open_file(self) -> None:
        """Find the place of the heartbeat file, and write it for the first time."""
        try:
            if self._number is None:
                heartbeat_file.remove_old(os.environ)
            self._file = HeartbeatFile(heartbeat_path(self._settings, self._owner, self._number))
            self._file.write(self._heartbeat())
        except OSError as error:
            file = None if self._file is None else str(self._file.path)
            self._file = None
            logs.logger().warning(
                "heartbeat not written",
                file=file,
                error=error.strerror or str(error),
                remedy="set DELTALOOM_HEARTBEAT_FILE to a path in a folder that can be written",
            )

    def _heartbeat(self) -> Heartbeat:
        processes = 1 if self._number is None else self._settings.processes
        return Heartbeat(self._owner, processes, not self.not_started(), self.not_ready(), self.stuck())

    async def _turn(self) -> NoReturn:
        busy = time.process_time()
        while True:
            late = self.liveness.turn(time.monotonic(), _TURN_SECONDS)
            before, busy = busy, time.process_time()
            if late > LIMITS["loop"]:  # else the errors that follow would blame Redis
                logs.logger().warning(
                    "process did not run", seconds=round(late, 1), busy_seconds=round(busy - before, 1)
                )
            now = self._heartbeat()
            if self._file is not None:
                with suppress(OSError):  # a full disk; whoever checks the file finds it old
                    self._file.write(now)
            self._manager.turn(started=now.started, not_ready=now.not_ready, stuck=now.stuck)
            await asyncio.sleep(_TURN_SECONDS)

    async def _livez(self, _: HttpRequest) -> Answer:
        return verdict(self.stuck())

    async def _readyz(self, _: HttpRequest) -> Answer:
        return verdict(self.not_ready())

    async def _startupz(self, _: HttpRequest) -> Answer:
        return verdict(self.not_started())

    async def _statusz(self, _: HttpRequest) -> Answer:
        from service.observability.status import about  # noqa: PLC0415 - imported already

        now = time.monotonic()
        return as_json(
            {
                **about(self._settings),
                "pid": os.getpid(),
                "stuck": self.stuck(),
                "not_ready": self.not_ready(),
                "worst_loop_lag_seconds": round(self.liveness.worst_lag, 3),
                "in_hand": self.liveness.in_hand(now),
                **{name: await part.status() for name, part in self.parts.items()},
            }
        )


async def listen(server: HttpServer, address: str) -> None:
    """Start a server at an address of the settings.

    Raises:
        SettingsError: the address cannot be used.
    """
    host, port = host_and_port(address)
    try:
        bound = await server.start(host, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(f"DELTALOOM_HTTP={address!r} cannot be used: {reason}") from None
    logs.logger().info("http started", host=host, port=bound)


def heartbeat_path(settings: Settings, owner: int, number: int | None) -> Path:
    """Return the path of a process's heartbeat file.

    Args:
        settings: name the file, or none.
        owner: process id of the program.
        number: number of the process, if it is one of several.

    Raises:
        OSError: there is no place for the file.
    """
    given = settings.heartbeat_file
    environment = {**os.environ, heartbeat_file.SETTING: "" if given is None else str(given)}
    return heartbeat_file.path_of(environment, owner, number)


def socket_of(owner: int, number: int) -> Path:
    """Return the path of the socket at which one of several processes serves its parent.

    Raises:
        OSError: there is no place for it.
    """
    return heartbeat_file.private_folder(os.environ) / f"{owner}.{number}.socket"


def verdict(reasons: list[str]) -> Answer:
    """Return 200 if there is no reason against it, else 503 with the reasons, one a line."""
    if not reasons:
        return text("ok")
    return text("\n".join(reasons), HTTPStatus.SERVICE_UNAVAILABLE)


@asynccontextmanager
async def observing(settings: Settings, number: int | None = None) -> AsyncIterator[Observation]:
    """Observe this process within the block.

    Raises:
        SettingsError: the address of the HTTP server cannot be used.
    """
    observation = Observation(settings, number)
    try:
        await observation.start()
        yield observation
    finally:
        await observation.stop()
