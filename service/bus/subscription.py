"""Subscribe to a stream in batches, with manual acknowledgement and a decoder of our own.

FastStream's default decodes a batch as one JSON array, so one bad item fails them all; here a batch is passed
on as the client gathered it. The group is not created here, because FastStream would start it at the end of
the stream (`ConsumerGroup.ensure` starts it at 0).
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
    process: Callable[[_Batch], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    """Pass every batch of the input to `process`, which acknowledges it.

    Return the function that starts reading.
    """
    stream = StreamSub(
        names.deltas,
        group=GROUP,
        consumer=settings.consumer,
        batch=True,
        max_records=settings.batch_size,
        polling_interval=settings.block_ms,
    )
    return subscribe_to(broker, stream, process)


def subscribe_to(
    broker: RedisBroker,
    stream: StreamSub[Literal[True]],
    process: Callable[[_Batch], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    """Pass every batch of a stream to `process`, which acknowledges it.

    Return the function that starts reading. Before the broker has started, its own start does this.
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
        await process(batch)

    return subscriber.start
