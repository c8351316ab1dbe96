"""Create FastStream's broker, with deltaloom's client and logger.

The seams of FastStream that this module relies on are listed in `service/storage/client/reading_client.py`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from faststream.redis import RedisBroker
from faststream.redis.configs import RedisConnectionState
from typing_extensions import override

from service.logs import FASTSTREAM_LOGGER

if TYPE_CHECKING:
    import asyncio

    from faststream.redis.subscriber.usecases import LogicSubscriber

    from service.settings import Settings
    from service.storage.client.reading_client import ReadingClient


def make_broker(settings: Settings, client: ReadingClient) -> RedisBroker:
    """Return a broker that reads with `client` and logs messages at level debug.

    It is the same for a single server, a cluster and a master behind sentinels: FastStream's own brokers for
    these differ in how they connect, and here the client does that.
    """

    class GivenConnection(RedisConnectionState):
        @override
        async def connect(self) -> Any:
            self._client, self._connected = cast("Any", client), True
            return client

    class Broker(RedisBroker):
        @override
        def _make_connection_state(self, *_: Any) -> GivenConnection:
            return GivenConnection()

    return Broker(
        settings.address.urls[0],
        logger=logging.getLogger(FASTSTREAM_LOGGER),
        log_level=logging.DEBUG,
        apply_types=False,
        graceful_timeout=settings.shutdown_timeout,
    )


def readers_of(broker: RedisBroker) -> list[asyncio.Task[Any]]:
    """Return the broker's reading tasks; call this before the broker is stopped.

    FastStream cancels them but does not wait for them. A task that was just connecting would leave its
    connection open, and a task that lost the cancellation would open the client again.
    """
    subscribers = cast("list[LogicSubscriber]", broker.subscribers)
    return [task for subscriber in subscribers for task in subscriber.tasks]
