"""A server that a test can kill and start again; it writes each command to disk before it answers."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Self

from redis import Redis
from redis.exceptions import RedisError

from embedded.free_ports import free_port
from tests.server import program
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


class MortalServer:
    """A Valkey server with one folder and one port through all its restarts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"redis://127.0.0.1:{self._port}"

    async def start(self, *options: str) -> Self:
        """Start the server, and wait until it has loaded its data."""
        self._process = await asyncio.create_subprocess_exec(
            program(),
            *("--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *options,
            stdout=asyncio.subprocess.DEVNULL,
        )
        await wait_until(self._answers, 30, message="the server answers")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, "the server has ended: another program may have its port"
        try:
            with Redis(port=self._port, socket_timeout=1) as client:
                return bool(client.ping())
        except RedisError:
            return False

    async def kill(self) -> None:
        """Kill the server, so that it cannot write anything more."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Suspend the server: it answers nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume the server."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
