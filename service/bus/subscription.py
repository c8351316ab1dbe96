"""A stream as a FastStream batch subscriber: manual acknowledgement, decoding of our own.

FastStream's default would decode a batch as one JSON array, so that one bad item fails all; here a batch is
passed on as the client gathered it. The group is not created here: FastStream would let it begin at the
stream's end (`ConsumerGroup.ensure` lets it begin at 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from faststream import AckPolicy
from faststream.message import StreamMessage
from faststream.redis import RedisBroker, StreamSub

from deltaloom.streams import GROUP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from deltaloom.streams import StreamNames
    from service.settings import Settings


_Batch = TypeVar("_Batch")


def subscribe(
    broker: RedisBroker,
    names: StreamNames,
    settings: Settings,
    take: Callable[[_Batch], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    """Have every batch of the input taken by `take`, which acknowledges it; returns what begins to read."""
    stream = StreamSub(
        names.deltas,
        group=GROUP,
        consumer=settings.consumer,
        batch=True,
        max_records=settings.batch_size,
        polling_interval=settings.block_ms,
    )
    return subscribe_to(broker, stream, take)


def subscribe_to(
    broker: RedisBroker,
    stream: StreamSub[Literal[True]],
    take: Callable[[_Batch], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    """Have every batch of a stream taken by `take`, which acknowledges it.

    Returns what begins to read; before the broker has started, its start does.
    """

    async def parse(message: Any) -> StreamMessage[Any]:
        return StreamMessage(raw_message=message, body=b"", message_id=message["message_ids"][0].decode())

    async def decode(message: StreamMessage[Any]) -> _Batch:
        batch: _Batch = message.raw_message["data"][0]
        return batch

    subscriber = broker.subscriber(
        stream=stream, ack_policy=AckPolicy.MANUAL, parser=parse, decoder=decode, no_reply=True
    )

    @subscriber
    async def handle(batch: Any) -> None:
        await take(batch)

    return subscriber.start
