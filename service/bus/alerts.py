"""The streams of alerts as FastStream subscribers, in the consumer group of one destination.

A broker lives as long as the destination's lease is held: whoever does not hold it must not be given entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from faststream.redis import RedisBroker, StreamSub

from handlers.core.identity import EntryId
from service.bus.broker import make_broker, readers_of
from service.bus.subscription import subscribe_to
from service.cancelling import cancelled
from service.ports.outbox import CONSUMER, RELAY_PREFIX, Owed, Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from service.ports.storage import RawEntry
    from service.settings import Settings

Take = Callable[[Sequence[Owed]], Awaitable[None]]

AT_ONCE = 100
"""Alerts read at once; fewer if they are large."""

_READERS_END_WITHIN = 0.2
"""Seconds."""

_LAST_READ_WITHIN = 0.2
"""Seconds that an answer may take, beyond those that a read waits for something to come."""


@asynccontextmanager
async def reading(
    settings: Settings, client: Any, destination: str, takers: Mapping[str, Take]
) -> AsyncIterator[None]:
    """Have what comes be taken, within the block.

    Args:
        settings: where the server is.
        client: reads; it is closed in the end.
        destination: whose group it is, which is there.
        takers: by stream, what takes the entries.
    """
    broker = make_broker(settings, client)
    hands = _Hands()
    for stream, take in takers.items():
        subscription = StreamSub(
            stream,
            group=f"{RELAY_PREFIX}{destination}",
            consumer=CONSUMER,
            batch=True,
            max_records=AT_ONCE,
            polling_interval=settings.block_ms,
        )
        subscribe_to(broker, subscription, hands.taker(stream, take))
    try:
        await broker.start()
        yield
    finally:
        try:
            await hands.close()
            # A read whose connection is closed would tell that Redis is away.
            await client.reads.no_more(settings.block_ms / 1000 + _LAST_READ_WITHIN)
        finally:
            await _stopped(broker, client)


async def _stopped(broker: RedisBroker, client: Any) -> None:
    """Come back when nothing reads any more, and nothing is open."""
    readers = readers_of(broker)
    try:
        await broker.stop()
    finally:  # whoever waits for this may lose patience
        try:
            await cancelled(*readers, again_after=_READERS_END_WITHIN)
        finally:
            await client.aclose()


class _Hands:
    """What hands entries on, until it is told to stop: FastStream waits for them, and Redis may be away."""

    def __init__(self) -> None:
        self._closed = False
        self._busy: set[asyncio.Task[None]] = set()

    def taker(self, stream: str, take: Take) -> Callable[[Sequence[RawEntry]], Awaitable[None]]:
        """What hands the entries of a stream on."""

        async def hand_on(entries: Sequence[RawEntry]) -> None:
            await take([_owed(stream, entry_id, fields) for entry_id, fields in entries])

        async def take_raw(entries: Sequence[RawEntry]) -> None:
            if self._closed:
                return  # they stay owed
            task = asyncio.create_task(hand_on(entries))
            self._busy.add(task)
            await asyncio.wait({task})
            self._busy.discard(task)
            if not task.cancelled():
                task.result()

        return take_raw

    async def close(self) -> None:
        """Hand on nothing more; come back when what is in hand was let go of."""
        self._closed = True
        await cancelled(*self._busy)


def _owed(stream: str, entry_id: bytes, fields: Sequence[bytes]) -> Owed:
    data = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"__data__")
    return Owed(Place(stream, EntryId.parse(entry_id.decode())), data)
