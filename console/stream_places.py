"""The places from which streams are read on, though they are deleted, made anew, or are no streams."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from service import logs
from service.storage.client.availability import unavailable_if_away
from service.visible import visible

if TYPE_CHECKING:
    from collections.abc import Collection

    from redis.asyncio import Redis

_CHECK_SECONDS: Final = 5.0
"""Seconds between two checks of the streams that were quiet meanwhile."""

_BEGINNING: Final = b"0-0"

_Name = TypeVar("_Name", bytes, str)


class StreamPlaces:
    """The id after which each of some streams is read on.

    Args:
        client: client of the server.
        streams: names of the streams.
    """

    def __init__(self, client: Redis, streams: Collection[bytes]) -> None:
        self._client = client
        self._streams = streams
        self.after: dict[bytes, bytes] = {}
        """Ids, by stream; empty at the beginning."""
        self._odd: frozenset[bytes] = frozenset()
        """Keys that are no streams: what they hold is left out."""
        self._quiet = set(streams)
        self._next_check = 0.0

    @property
    def asked(self) -> dict[bytes, bytes]:
        """The places of the streams that can be read."""
        return {stream: after for stream, after in self.after.items() if stream not in self._odd}

    @property
    def readable(self) -> list[bytes]:
        """The streams that can be read."""
        return [stream for stream in self._streams if stream not in self._odd]

    def go_on(self, stream: bytes, after: bytes) -> None:
        """Go on after an entry."""
        self.after[stream] = after
        self._quiet.discard(stream)

    def check_soon(self) -> None:
        """Check before the next read: a key has changed its type."""
        self._next_check = 0.0

    async def check_if_due(self) -> None:
        """Find keys that are no streams, and streams whose entries all are before their place.

        Such a stream was deleted and made anew with lower ids: nothing would be read of it any more. If only
        its newest entries were deleted, going on after those before them is right, too.
        """
        if time.monotonic() < self._next_check:
            return
        await self._find_odd()
        quiet = [stream for stream in self._quiet & self.after.keys() if stream not in self._odd]
        pipeline = self._client.pipeline(transaction=False)
        for stream in quiet:
            pipeline.xrevrange(stream, count=1)
        with unavailable_if_away():
            replies: Any = await pipeline.execute() if quiet else []
        for stream, newest in zip(quiet, replies, strict=True):
            found = newest[0][0] if newest else _BEGINNING
            if _number(found) < _number(self.after[stream]):
                self.after[stream] = found
        self._quiet = set(self._streams)
        self._next_check = time.monotonic() + _CHECK_SECONDS

    async def _find_odd(self) -> None:
        odd = frozenset(await other_keys(self._client, self._streams))
        for stream in odd - self._odd:
            logs.logger().warning("stream not shown, it is no stream", key=visible(stream.decode()))
        for stream in self._odd - odd:
            self.after.setdefault(stream, _BEGINNING)
        self._odd = odd


async def other_keys(client: Redis, names: Collection[_Name]) -> list[_Name]:
    """Return the names of keys that exist and are no streams."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.type(name)
    with unavailable_if_away():
        types: Any = await pipeline.execute()
    return [name for name, kind in zip(names, types, strict=True) if kind not in {b"stream", b"none"}]


def _number(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)
