"""A proxy in front of a Redis server, which may delay requests and replies, or cut connections."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class RedisProxy(ABC):
    """A proxy that passes on what its subclass lets through.

    Args:
        url: URL of the server.
    """

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self._server = at.hostname or "127.0.0.1", at.port or 6379
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()

    @abstractmethod
    async def passes(self, connection: int, data: bytes, *, is_reply: bool) -> bool:
        """Return True when data of a connection are to go on, or False to cut the connection."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Listen while the block lasts, and yield the port."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        number = next(self._numbers)
        requests = asyncio.create_task(self._pass(number, reader, server_writer, are_replies=False))
        replies = asyncio.create_task(self._pass(number, server_reader, writer, are_replies=True))
        self._tasks |= {requests, replies}
        await asyncio.wait((requests, replies), return_when=asyncio.FIRST_COMPLETED)
        writer.transport.abort()
        server_writer.transport.abort()

    async def _pass(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, are_replies: bool
    ) -> None:
        while data := await reader.read(2**16):
            if not await self.passes(number, data, is_reply=are_replies):
                return
            writer.write(data)
