"""A connection that is lost while a worker starts: it waits for the server, and does not end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from deltaloom import StreamNames
from handlers import BUILT_IN
from handlers.core.routing import RoutingTable
from service.keys import Keys
from service.ports.storage import StorageUnavailableError
from service.rehearsal import rehearse
from service.settings import Settings
from service.storage.client.connection import client_of
from service.storage.client.server import ask
from service.storage.group import ConsumerGroup
from service.storage.state_format import StateFormat
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from redis.asyncio import Redis


class CuttingProxy:
    """Passes bytes on to a server, and cuts the connection in place of one request."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut_at = 0
        """The number of that request; 0: none."""
        self.requests = 0
        """How many have come."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Listen while the block lasts; yields the port."""
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
        requests = asyncio.create_task(self._pass(reader, server_writer, requests=True))
        replies = asyncio.create_task(self._pass(server_reader, writer, requests=False))
        self._tasks |= {requests, replies}
        await asyncio.wait((requests, replies), return_when=asyncio.FIRST_COMPLETED)
        writer.transport.abort()
        server_writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, requests: bool
    ) -> None:
        while data := await reader.read(2**16):
            if requests:
                self.requests += 1
                if self.requests == self.cut_at:
                    return
            writer.write(data)


def rehearsal(client: Redis, settings: Settings) -> Awaitable[object]:
    """All that a worker runs on the server, once."""
    return rehearse(client, RoutingTable(BUILT_IN.values()), settings, settings.names.all[0])


def claim(client: Redis, settings: Settings) -> Awaitable[object]:
    """Look whether this worker can read the state that is there."""
    return StateFormat(client, Keys(StreamNames(settings.prefix)).format).claim()


def group(client: Redis, settings: Settings) -> Awaitable[object]:
    """Make the consumer group."""
    return ConsumerGroup(client, Keys(StreamNames(settings.prefix)), "one").ensure()


def scripts(client: Redis, settings: Settings) -> Awaitable[object]:
    """Load the scripts."""
    return RedisStorage(client, Keys(StreamNames(settings.prefix)), settings).load_scripts()


def server(client: Redis, settings: Settings) -> Awaitable[object]:
    """Ask the server what it promises."""
    return ask(client, settings.prefix)


@pytest.mark.parametrize("step", [rehearsal, claim, group, scripts, server])
async def test_each_request_of_a_start_may_be_lost(
    redis_url: str, prefix: str, step: Callable[[Redis, Settings], Awaitable[object]]
) -> None:
    """Whoever starts a worker beside a server that restarts would find it ended, with a traceback."""
    at = urlsplit(redis_url)
    proxy = CuttingProxy(at.hostname or "127.0.0.1", at.port or 6379)
    async with proxy.running() as port:
        settings = Settings(redis_url=f"redis://127.0.0.1:{port}", prefix=prefix)
        lost = 0
        # Until a step needs fewer requests than it would take to reach the one that is cut.
        while proxy.requests >= proxy.cut_at:
            proxy.requests, proxy.cut_at = 0, proxy.cut_at + 1
            async with client_of(settings.address) as client:
                try:
                    await step(client, settings)
                except StorageUnavailableError:
                    lost += 1
    assert lost
