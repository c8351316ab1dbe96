"""What stands between the workers and the server: it passes bytes on, and can be told to fail.

A connection can be cut (both ends see a reset), muted (requests go through, replies are swallowed, then it
is cut: the worker cannot know what was done), delayed, or stalled (nothing moves for a while, then all of it,
so that a request can be executed long after the worker has given it up).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.ending import end_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK = 256 * 1024
_LIMIT = 2**20


@dataclass(eq=False, slots=True)
class _Connection:
    """A worker's connection, and the one to the server that stands for it."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    muted: bool = False
    stalled: asyncio.Event | None = None

    def abort(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """A TCP proxy on a port of this machine."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._connections: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay = 0.0
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen, for as long as the block lasts."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_LIMIT)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            self.cut(1.0)
            await end_tasks(*self._tasks)

    def cut(self, share: float) -> int:
        """Reset this share of the connections, the longest open first (at least one)."""
        chosen = self._some(share)
        for connection in chosen:
            connection.abort()
        return len(chosen)

    async def mute(self, share: float, seconds: float) -> int:
        """Swallow the replies of some connections for a while, then reset them."""
        chosen = self._some(share)
        for connection in chosen:
            connection.muted = True
        try:
            await asyncio.sleep(seconds)
        finally:
            for connection in chosen:
                connection.abort()
        return len(chosen)

    async def delay(self, seconds: float, latency: float) -> None:
        """Let everything take longer for a while."""
        self._delay = latency
        try:
            await asyncio.sleep(seconds)
        finally:
            self._delay = 0.0

    async def stall(self, share: float, seconds: float) -> int:
        """Hold everything back on some connections for a while."""
        chosen = [connection for connection in self._some(share) if connection.stalled is None]
        go_on = asyncio.Event()
        for connection in chosen:
            connection.stalled = go_on
        try:
            await asyncio.sleep(seconds)
        finally:
            for connection in chosen:
                connection.stalled = None
            go_on.set()
        return len(chosen)

    def _some(self, share: float) -> list[_Connection]:
        if not self._connections:
            return []
        return self._connections[: max(1, round(len(self._connections) * share))]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        connection = _Connection([writer])
        try:
            server_reader, server_writer = await asyncio.open_connection(
                "127.0.0.1", self._server_port, limit=_LIMIT
            )
        except OSError:
            connection.abort()
            return
        connection.writers.append(server_writer)
        self._connections.append(connection)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(connection, reader, server_writer, replies=False))
                both.create_task(self._pass(connection, server_reader, writer, replies=True))
        except* (OSError, asyncio.CancelledError):
            pass  # cut, or the end of the run
        finally:
            self._connections.remove(connection)
            connection.abort()

    async def _pass(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        replies: bool,
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            if connection.stalled is not None:
                await connection.stalled.wait()
            if replies and connection.muted:
                continue
            writer.write(data)
            await writer.drain()
        # A client that gave up closes its end; what it had sent is still executed, as on a real network.
        if replies:
            connection.abort()
        else:
            with contextlib.suppress(OSError):
                writer.write_eof()
