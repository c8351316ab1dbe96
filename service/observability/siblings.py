"""Tell about the processes of `--processes N` together, in the parent that supervises them.

The processes are judged by their heartbeat files, which also says that one is frozen. What is too large for a
heartbeat is asked at the Unix sockets at which they serve.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from service.cancelling import cancel
from service.observability import heartbeat_file
from service.observability.observation import heartbeat_path, listen, socket_of, verdict
from service.observability.routes import Answer, HttpRequest, as_json
from service.observability.service_manager import ServiceManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.observability.http_server import HttpServer
    from service.observability.routes import Route
    from service.settings import Settings

_TURN_SECONDS = 1.0
"""Seconds between two looks at the heartbeats for the service manager."""
STARTS_WITHIN = 60.0
"""Seconds for a process to write its first heartbeat; slow machines start many processes slowly."""
_ASKED_WITHIN = 2.0
"""Maximum seconds for the answer of one process."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Maximum bytes of the answer of one process."""


class Siblings:
    """The processes that this one supervises. Others may add routes that ask all of them.

    Args:
        settings: the settings of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._numbers = range(1, settings.processes + 1)
        self._began = time.monotonic()
        self._manager = ServiceManager(os.environ)
        self._turning: asyncio.Task[NoReturn] | None = None
        self._server: HttpServer | None = None
        self.routes: dict[str, Route] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/startupz": self._startupz,
        }
        """The routes of the HTTP server by path."""

    async def start(self) -> None:
        """Begin to observe, and serve HTTP if the settings say so.

        Raises:
            SettingsError: the address cannot be used.
        """
        heartbeat_file.remove_old(os.environ)
        if self._settings.http is not None:
            await self._serve(self._settings.http)
        self._turning = asyncio.create_task(self._turn())

    async def stop(self) -> None:
        """Stop serving and observing."""
        self._manager.stopping()
        if self._turning is not None:
            await cancel(self._turning)
        if self._server is not None:
            await self._server.stop()

    async def from_each(self, path: str) -> dict[int, bytes | None]:
        """Ask each process for a path; return the bodies by number: None if there is no answer in time."""
        bodies = await asyncio.gather(*(self._from_one(number, path) for number in self._numbers))
        return dict(zip(self._numbers, bodies, strict=True))

    async def _from_one(self, number: int, path: str) -> bytes | None:
        try:
            async with asyncio.timeout(_ASKED_WITHIN):
                reader, writer = await asyncio.open_unix_connection(
                    str(socket_of(os.getpid(), number)), limit=MAX_ANSWER_BYTES
                )
                try:
                    writer.write(f"GET {path} HTTP/1.0\r\nHost: sibling\r\n\r\n".encode())
                    head = await reader.readuntil(b"\r\n\r\n")
                    return await _body_of(reader) if b" 200 " in head[:16] else None
                finally:
                    writer.close()
        except (OSError, TimeoutError, EOFError):
            return None

    def stuck(self) -> list[str]:
        """Return a line for each process that is stuck, frozen or gone."""
        may_still_start = time.monotonic() - self._began < STARTS_WITHIN
        reasons = []
        for number in self._numbers:
            file = self._file(number)
            trouble = heartbeat_file.trouble_of(heartbeat_file.age_of(file))
            if trouble and (file.exists() or not may_still_start):
                reasons.append(f"process {number}: {trouble}")
        return reasons

    def not_started(self) -> list[str]:
        """Return a line for each process that has not served yet."""
        found = {number: heartbeat_file.age_of(self._file(number)) for number in self._numbers}
        return [
            f"process {number}: starting" for number, each in found.items() if not each or not each[0].started
        ]

    def not_ready(self) -> list[str]:
        """Return a line for each thing that keeps a process from serving."""
        reasons = []
        for number in self._numbers:
            found = heartbeat_file.age_of(self._file(number))
            if found is None or heartbeat_file.silence_of(found):
                reasons.append(f"process {number}: {heartbeat_file.silence_of(found)}")
            else:
                reasons += (f"process {number}: {reason}" for reason in found[0].not_ready)
        return reasons

    def _file(self, number: int) -> Path:
        try:
            return heartbeat_path(self._settings, os.getpid(), number)
        except OSError:
            return Path(os.devnull)

    async def _serve(self, address: str) -> None:
        from service.observability.http_server import HttpServer  # noqa: PLC0415 - only then is aiohttp needed
        from service.observability.status import StatusGuard  # noqa: PLC0415 - as above

        guard = StatusGuard(self._settings)

        async def statusz(request: HttpRequest) -> Answer:
            return guard.refusal(request) or await self._statusz()

        self.routes["/statusz"] = statusz
        self._server = HttpServer(self.routes)
        await listen(self._server, address)

    async def _turn(self) -> NoReturn:
        while True:
            self._manager.turn(started=not self.not_started(), not_ready=self.not_ready(), stuck=self.stuck())
            await asyncio.sleep(_TURN_SECONDS)

    async def _livez(self, _: HttpRequest) -> Answer:
        return verdict(self.stuck())

    async def _readyz(self, _: HttpRequest) -> Answer:
        return verdict(self.not_ready())

    async def _startupz(self, _: HttpRequest) -> Answer:
        return verdict(self.not_started())

    async def _statusz(self) -> Answer:
        processes: list[Any] = [
            {"process": number, **({"error": "no answer"} if body is None else json.loads(body))}
            for number, body in (await self.from_each("/statusz")).items()
        ]
        return as_json({"stuck": self.stuck(), "not_ready": self.not_ready(), "processes": processes})


async def _body_of(reader: asyncio.StreamReader) -> bytes | None:
    """Read to the end of an answer; return None if it is longer than `MAX_ANSWER_BYTES`."""
    body = bytearray()
    while more := await reader.read(MAX_ANSWER_BYTES + 1 - len(body)):
        body += more
    return bytes(body) if len(body) <= MAX_ANSWER_BYTES else None


@asynccontextmanager
async def observing_siblings(settings: Settings) -> AsyncIterator[Siblings]:
    """Observe the supervised processes within the block.

    Raises:
        SettingsError: the address of the HTTP server cannot be used.
    """
    siblings = Siblings(settings)
    try:
        await siblings.start()
        yield siblings
    finally:
        await siblings.stop()
