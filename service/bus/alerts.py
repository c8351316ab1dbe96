"""Subscribe to the alert streams as the consumer group of one destination.

A broker exists only while the destination's lease is held, so that only the holder of the lease reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from faststream.redis import RedisBroker, StreamSub

from handlers.core.identity import EntryId
from service.bus.broker import make_broker, readers_of
from service.bus.subscription import subscribe_to
from service.cancelling import cancel
from service.ports.outbox import CONSUMER, RELAY_PREFIX, EntryRef, PendingAlert

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from service.ports.storage import RawEntry
    from service.settings import Settings
    from service.storage.client.reading_client import ReadingClient

Receive = Callable[[Sequence[PendingAlert]], Awaitable[None]]

MAX_PER_READ = 100
"""Maximum number of alerts per read; fewer if they are large."""

_CANCEL_AGAIN_AFTER = 0.2
"""Seconds before a cancelled reader that has not ended is cancelled again."""

_LAST_READ_WITHIN = 0.2
"""Seconds to wait for the reply of the last read, after its blocking time."""


@asynccontextmanager
async def reading(
    settings: Settings, client: ReadingClient, destination: str, receivers: Mapping[str, Receive]
) -> AsyncIterator[None]:
    """Pass entries to the receivers as they arrive, within the block.

    Args:
        settings: address of the server, and timeouts.
        client: client that reads; it is closed at the end.
        destination: name of the destination; its consumer group must exist.
        receivers: functions that receive the entries, by stream.
    """
    broker = make_broker(settings, client)
    handovers = _Handovers()
    for stream, receive in receivers.items():
        subscription = StreamSub(
            stream,
            group=f"{RELAY_PREFIX}{destination}",
            consumer=CONSUMER,
            batch=True,
            max_records=MAX_PER_READ,
            polling_interval=settings.block_ms,
        )
        subscribe_to(broker, subscription, handovers.handing_to(stream, receive))
    try:
        await broker.start()
        yield
    finally:
        try:
            await handovers.close()
            # A read whose connection is closed would be reported as an unavailable Redis.
            await client.reads.drain(settings.block_ms / 1000 + _LAST_READ_WITHIN)
        finally:
            await _stop(broker, client)


async def _stop(broker: RedisBroker, client: ReadingClient) -> None:
    """Stop the broker, and return when all readers have ended and the client is closed."""
    readers = readers_of(broker)
    try:
        await broker.stop()
    finally:  # the caller may cancel this
        try:
            await cancel(*readers, again_after=_CANCEL_AGAIN_AFTER)
        finally:
            await client.aclose()


class _Handovers:
    """Passes entries to receivers, each time in a task that can be cancelled.

    A receiver may wait for Redis for long, and FastStream would wait for it at shutdown.
    """

    def __init__(self) -> None:
        self._closed = False
        self._under_way: set[asyncio.Task[None]] = set()

    def handing_to(self, stream: str, receive: Receive) -> Callable[[list[RawEntry]], Awaitable[None]]:
        """Return a function that passes raw entries of a stream to a receiver."""

        async def parse_and_pass(entries: list[RawEntry]) -> None:
            await receive([_pending_alert(stream, entry_id, fields) for entry_id, fields in entries])

        async def hand_over(entries: list[RawEntry]) -> None:
            if self._closed:
                return  # they stay pending
            task = asyncio.create_task(parse_and_pass(entries))
            self._under_way.add(task)
            await asyncio.wait({task})
            self._under_way.discard(task)
            if not task.cancelled():
                task.result()

        return hand_over

    async def close(self) -> None:
        """Pass on nothing more, and cancel the tasks under way."""
        self._closed = True
        await cancel(*self._under_way)


def _pending_alert(stream: str, entry_id: bytes, fields: Sequence[bytes]) -> PendingAlert:
    data = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"__data__")
    return PendingAlert(EntryRef(stream, EntryId.parse(entry_id.decode())), data)
