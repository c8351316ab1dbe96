"""Measure a deployment: the work of its group in all partitions, and the memory of its servers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from deltaloom.streams import GROUP
from service.keys import LEFT_OUT, Keys
from service.ports.deployment_figures import GroupFigures
from service.ports.storage import StorageUnavailableError
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames

_AT_ONCE = 4
"""Maximum partitions that are measured at the same time."""

LARGE_BYTES = 1024 * 1024
"""Minimum bytes of a large entry."""

LARGE_EVERY = 60.0
"""Seconds between two measurements of the same large entry while it stays the oldest unread one.

figures.lua needs only the id of the oldest unread entry, but no command returns an id without its entry. The
copy of an entry of 300 MB takes the server a second and 600 MB of memory.
"""

_SUMMED = {"type": "without_effect", LEFT_OUT[:-1]: "ignored_fields", "truncated": "truncated_values"}
"""Names of sums, by the first part of a count's name. Counts like `type:keepalive` are added up."""


class FiguresReply(NamedTuple):
    """The reply of figures.lua about one partition; the header of the script describes the fields.

    A field that ends with `_ms` is a time in ms since the epoch; -1 stands for no such entry.
    """

    now_ms: str
    lag: int
    pending: int
    oldest_pending_ms: str
    oldest_unread_ms: str
    mark_ms: str
    open: int
    waiting: int
    memory_used: str
    memory_limit: str
    counts: list[str]
    last_delivered: str
    unread_bytes: int


class _LargeEntry(NamedTuple):
    """A large entry that was the oldest unread one when figures.lua last read it."""

    after: str
    """Id of the last entry that was delivered before it."""
    ms: str
    """Milliseconds in the large entry's id, as text."""
    looked_at: float
    """Monotonic time in seconds at which the script read it."""


decode_figures = msgspec.msgpack.Decoder(FiguresReply).decode


class RedisFigures:
    """Measures all partitions of a deployment.

    Args:
        client: client of the server.
        partitions: all partitions, not only those that this process serves.
        in_cluster: True if the partitions may be on several servers.
    """

    def __init__(self, client: Redis, partitions: Sequence[StreamNames], *, in_cluster: bool) -> None:
        self._keys = [Keys(names) for names in partitions]
        self._in_cluster = in_cluster
        self._script = scripts.Script(client, "figures")
        self._large: dict[str, _LargeEntry] = {}
        """The large entry that was found last, by input stream."""

    async def ask(self) -> GroupFigures:
        """Measure all partitions; return their figures together.

        In a cluster, partitions whose server is unavailable are left out.

        Raises:
            StorageUnavailableError: the server is unavailable; in a cluster, no partition could be measured.
            SetupError: the user may not access a key of a partition, or it has another type.
        """
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int) -> FiguresReply:
            async with limit:
                return await self._ask(self._keys[number], looks_at_memory=self._in_cluster or number == 0)

        replies = await asyncio.gather(*map(one, range(len(self._keys))), return_exceptions=True)
        measured = []
        for reply in replies:
            if isinstance(reply, FiguresReply):
                measured.append(reply)
            elif not (self._in_cluster and isinstance(reply, StorageUnavailableError)):
                raise reply
        if not measured:
            raise StorageUnavailableError("no server", "none of the partitions could be measured")
        return _together(measured)

    async def _ask(self, keys: Keys, *, looks_at_memory: bool) -> FiguresReply:
        stream, now = keys.names.deltas, time.monotonic()
        large = self._large.get(stream)
        known = ("", "")
        if large is not None and now - large.looked_at <= LARGE_EVERY:
            known = (large.after, large.ms)
        with unavailable_if_away():
            packed = await self._script(
                keys=[stream, keys.open, keys.waiting, keys.owners, keys.counts],
                args=[GROUP, int(looks_at_memory), *known],
            )
        reply = decode_figures(packed)
        if reply.unread_bytes >= LARGE_BYTES:
            self._large[stream] = _LargeEntry(reply.last_delivered, reply.oldest_unread_ms, now)
        return reply


def _together(replies: Sequence[FiguresReply]) -> GroupFigures:
    counts: Counter[str] = Counter()
    for reply in replies:
        for name, number in zip(reply.counts[::2], reply.counts[1::2], strict=True):
            kind = name.partition(":")[0]
            counts[_SUMMED.get(kind, kind)] += int(number) if number.lstrip("-").isdecimal() else 0
    ratios = [
        int(each.memory_used) / int(each.memory_limit) for each in replies if int(each.memory_limit) > 0
    ]
    return GroupFigures(
        lag=sum(each.lag for each in replies),
        pending=sum(each.pending for each in replies),
        oldest_seconds=max(
            max(_age(each, each.oldest_pending_ms), _age(each, each.oldest_unread_ms)) for each in replies
        ),
        oldest_pending_seconds=max(_age(each, each.oldest_pending_ms) for each in replies),
        low_water_seconds=max(_age(each, each.mark_ms) for each in replies),
        open=sum(each.open for each in replies),
        waiting=sum(each.waiting for each in replies),
        memory_ratio=max(ratios, default=None),
        counts=counts,
    )


def _age(reply: FiguresReply, ms: str) -> float:
    """Return the age in seconds of an entry whose id begins with `ms`; 0 if that is -1 or in the future."""
    return max(0.0, (int(reply.now_ms) - int(ms)) / 1000) if int(ms) >= 0 else 0.0
