"""A proxy between the workers and the server that disturbs connections on request.

A connection can be cut (both ends see a reset), muted (requests pass and replies are dropped until the
connection is cut: the worker cannot know what was executed), delayed, or stalled (all bytes are held back for
a while, so that a request can be executed long after the worker has given it up).
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
    """A worker's connection, with the proxy's connection to the server."""

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
        """Listen while the block lasts."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_LIMIT)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            self.cut(1.0)
            await end_tasks(*self._tasks)

    def cut(self, share: float) -> int:
        """Reset this share of the connections, oldest first, at least one; return their number."""
        chosen = self._some(share)
        for connection in chosen:
            connection.abort()
        return len(chosen)

    async def mute(self, share: float, seconds: float) -> int:
        """Drop the replies of this share of the connections, then reset them; return their number."""
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
        """Delay all chunks by `latency` seconds for a while."""
        self._delay = latency
        try:
            await asyncio.sleep(seconds)
        finally:
            self._delay = 0.0

    async def stall(self, share: float, seconds: float) -> int:
        """Hold back all bytes on this share of the connections for a while; return their number."""
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
            pass  # the connection is cut, or the run has ended
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
        # A client that gives up closes its end; its requests are still executed, as on a real network.
        if replies:
            connection.abort()
        else:
            with contextlib.suppress(OSError, RuntimeError):  # uvloop raises RuntimeError if it is closed
                writer.write_eof()
