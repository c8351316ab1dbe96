"""A connection is lost while a worker starts: the worker waits for the server, and does not end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from deltaloom import StreamNames
from handlers import BUILT_IN
from handlers.core.routing import RoutingTable
from service.apps.rehearsal import rehearse
from service.keys import Keys
from service.ports.storage import StorageUnavailableError
from service.settings import Settings
from service.storage.client.connection import client_of
from service.storage.client.server import ask
from service.storage.group import ConsumerGroup
from service.storage.state_format import StateFormat
from service.storage.store import RedisStorage
from tests.redis_proxies import RedisProxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis


class CuttingProxy(RedisProxy):
    """A proxy in front of a server that cuts the connection in place of one request."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.cut_at = 0
        """Number of the request to cut, counted from 1; 0 means none."""
        self.requests = 0
        """Number of requests received so far."""

    @override
    async def passes(self, connection: int, data: bytes, *, is_reply: bool) -> bool:
        if is_reply:
            return True
        self.requests += 1
        return self.requests != self.cut_at


def rehearsal(client: Redis, settings: Settings) -> Awaitable[object]:
    """Run each command and script of a worker once, on scratch keys."""
    return rehearse(client, RoutingTable(BUILT_IN.values()), settings, settings.names.all[0])


def claim(client: Redis, settings: Settings) -> Awaitable[object]:
    """Check that this worker can read the stored state."""
    return StateFormat(client, Keys(StreamNames(settings.prefix)).format).write_note()


def group(client: Redis, settings: Settings) -> Awaitable[object]:
    """Create the consumer group."""
    return ConsumerGroup(client, Keys(StreamNames(settings.prefix)), "one").ensure()


def scripts(client: Redis, settings: Settings) -> Awaitable[object]:
    """Load the scripts."""
    return RedisStorage(client, Keys(StreamNames(settings.prefix)), settings).load_scripts()


def server(client: Redis, settings: Settings) -> Awaitable[object]:
    """Ask the server about its settings."""
    return ask(client, settings.prefix)


@pytest.mark.parametrize("step", [rehearsal, claim, group, scripts, server])
async def test_each_request_of_a_start_may_be_lost(
    redis_url: str, prefix: str, step: Callable[[Redis, Settings], Awaitable[object]]
) -> None:
    """Otherwise a worker that starts while its server restarts would end with a traceback."""
    proxy = CuttingProxy(redis_url)
    async with proxy.running() as port:
        settings = Settings(redis_url=f"redis://127.0.0.1:{port}", prefix=prefix)
        lost = 0
        # Cut one request later each time, until the step ends before the request to cut.
        while proxy.requests >= proxy.cut_at:
            proxy.requests, proxy.cut_at = 0, proxy.cut_at + 1
            async with client_of(settings.address) as client:
                try:
                    await step(client, settings)
                except StorageUnavailableError:
                    lost += 1
    assert lost
