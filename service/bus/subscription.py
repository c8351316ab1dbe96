"""The input stream as a FastStream batch subscriber: manual acknowledgement, decoding of our own.

FastStream's default would decode a batch as one JSON array, so that one bad item fails all; here each
entry is passed on as it is. The group is not created here: FastStream would let it begin at the
stream's end (`ConsumerGroup.ensure` lets it begin at 0).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from faststream import AckPolicy
from faststream.message import StreamMessage
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.configs import RedisConnectionState
from typing_extensions import override

from deltaloom.streams import GROUP
from service.bus.envelope import open_entry
from service.logs import FASTSTREAM_LOGGER
from service.ports import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from deltaloom.streams import StreamNames
    from service.settings import Settings
    from service.storage.connection import PatientRedis


def make_broker(settings: Settings, client: PatientRedis) -> RedisBroker:
    """The broker, reading by our client and logging to our logger (of each message: at the level debug)."""

    class Connection(RedisConnectionState):
        async def connect(self) -> PatientRedis:
            self._client, self._connected = client, True
            return client

    class Broker(RedisBroker):
        @override
        def _make_connection_state(
            self, connection_options: dict[str, Any], kwargs: dict[str, Any]
        ) -> RedisConnectionState:
            return Connection(connection_options)

    return Broker(
        settings.redis_url,
        logger=logging.getLogger(FASTSTREAM_LOGGER),
        log_level=logging.DEBUG,
        apply_types=False,
        graceful_timeout=settings.shutdown_timeout,
    )


def subscribe(
    broker: RedisBroker,
    names: StreamNames,
    settings: Settings,
    take: Callable[[Sequence[Entry]], Awaitable[None]],
) -> None:
    """Have every batch of the input taken by `take`, which acknowledges it."""

    async def parse(message: Any) -> StreamMessage[Any]:
        return StreamMessage(raw_message=message, body=b"", message_id=message["message_ids"][0].decode())

    async def decode(message: StreamMessage[Any]) -> list[Entry]:
        raw = message.raw_message
        return [
            open_entry(entry_id, fields)
            for entry_id, fields in zip(raw["message_ids"], raw["data"], strict=True)
        ]

    stream = StreamSub(
        names.deltas,
        group=GROUP,
        consumer=settings.consumer,
        batch=True,
        max_records=settings.batch_size,
        polling_interval=settings.block_ms,
    )

    @broker.subscriber(
        stream=stream, ack_policy=AckPolicy.MANUAL, parser=parse, decoder=decode, no_reply=True
    )
    async def deltas(entries: list[Entry]) -> None:
        await take(entries)
