"""Create FastStream's broker for each mode of Redis, with deltaloom's client and logger."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from faststream.redis import RedisBroker, RedisClusterBroker, RedisSentinelBroker
from faststream.redis.configs import RedisConnectionState
from faststream.redis.configs.state import RedisClusterConnectionState
from typing_extensions import override

from service.logs import FASTSTREAM_LOGGER

if TYPE_CHECKING:
    import asyncio

    from service.settings import Settings


def make_broker(settings: Settings, client: Any) -> RedisBroker:
    """Return a broker for a single server, a sentinel group or a cluster; it logs messages at level debug.

    Args:
        settings: address and mode of the server, and the shutdown timeout.
        client: client to read with, instead of one made by FastStream; it must be of the same mode.
    """
    address = settings.address
    common: dict[str, Any] = {
        "logger": logging.getLogger(FASTSTREAM_LOGGER),
        "log_level": logging.DEBUG,
        "apply_types": False,
        "graceful_timeout": settings.shutdown_timeout,
    }

    class Connection(RedisConnectionState):
        async def connect(self) -> Any:
            self._client, self._connected = client, True
            return client

    class ClusterConnection(RedisClusterConnectionState):
        async def connect(self) -> Any:
            self._client, self._connected = client, True
            return client

    class Broker(RedisBroker):
        @override
        def _make_connection_state(self, *_: Any) -> Connection:
            return Connection()

    class SentinelBroker(RedisSentinelBroker):
        @override
        def _make_connection_state(self, *_: Any) -> Connection:
            return Connection()

    class ClusterBroker(RedisClusterBroker):
        @override
        def _make_connection_state(self, *_: Any) -> ClusterConnection:
            return ClusterConnection()

    if address.mode == "cluster":
        return ClusterBroker(address.urls[0], **common)
    if address.mode == "sentinel":
        return SentinelBroker(
            address.urls[0], sentinels=address.hosts, sentinel_master_name=address.service, **common
        )
    return Broker(address.urls[0], **common)


def readers_of(broker: RedisBroker) -> list[asyncio.Task[Any]]:
    """Return the broker's reading tasks; call this before the broker is stopped.

    FastStream cancels them but does not wait for them. A task that was just connecting would leave its
    connection open, and a task that lost the cancellation would open the client again.
    """
    return [task for subscriber in broker.subscribers for task in getattr(subscriber, "tasks", ())]
