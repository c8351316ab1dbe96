"""Subscribe to a stream in batches, with manual acknowledgement and a decoder of our own.

FastStream's default decodes a batch as one JSON array, so one bad entry would fail the whole batch. Here
`process` gets the object that the reading client has filled. The group is not created here, because
FastStream would start it at the end of the stream; `ConsumerGroup.ensure` and `DestinationGroup.ensure`
create it. `service/storage/client/reading_client.py` has the theory of operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from faststream import AckPolicy
from faststream.message import StreamMessage
from faststream.redis import RedisBroker, StreamSub

from deltaloom.streams import GROUP
from service.storage.client.read_batch import Collector, ReadBatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from faststream.redis.message import BatchStreamMessage

    from deltaloom.streams import StreamNames
    from service.settings import Settings


_Collector = TypeVar("_Collector", bound=Collector)


class UncopiedStream(StreamSub[Literal[True]]):
    """A subscription that is not copied.

    FastStream calls `add_prefix` twice per batch, and would copy it each time, even for an empty prefix.
    """

    def add_prefix(self, prefix: str) -> Self:
        """Return the subscription with a prefix before its name: itself if that is empty."""
        return super().add_prefix(prefix) if prefix else self


def subscribe(
    broker: RedisBroker,
    names: StreamNames,
    settings: Settings,
    process: Callable[[_Collector], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    """Pass every batch of the input to `process`, which acknowledges it.

    Return the function that starts reading.
    """
    stream = UncopiedStream(
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
    process: Callable[[_Collector], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    """Pass every batch of a stream to `process`, which acknowledges the entries, or passes them on.

    Return the function that starts reading. If the broker has not started yet, its start begins the reading.
    """

    async def parse(message: BatchStreamMessage) -> StreamMessage[BatchStreamMessage]:
        (last_id,) = message["message_ids"]
        return StreamMessage(raw_message=message, body=b"", message_id=last_id.decode())

    async def decode(message: StreamMessage[BatchStreamMessage]) -> ReadBatch[_Collector]:
        (read,) = message.raw_message["data"]
        return cast("ReadBatch[_Collector]", read)

    subscriber = broker.subscriber(
        stream=stream, ack_policy=AckPolicy.MANUAL, parser=parse, decoder=decode, no_reply=True
    )

    @subscriber
    async def handle(read: Any) -> None:  # FastStream would build a pydantic model of a narrower type
        batch: ReadBatch[_Collector] = read
        await process(batch.collected)

    return subscriber.start
