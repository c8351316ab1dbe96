"""Looks at all partitions of one server together, with few commands while nothing happens.

The periodic tasks of a partition need some dozens of commands. A look finds the partitions that need a task.

Theory of operation:

1. A look is one script for all partitions, so all must be on one server; in a cluster, each partition has
   an overview of its own.
2. A look only reads. A partition that it cannot read because of an error, such as a stream of another type,
   counts as one that needs the task, so that the task meets the error itself.
3. A server rejects a script as a whole if its user may not access one of the keys. The caller then runs the
   tasks of all partitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from deltaloom.streams import GROUP
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis

    from service.keys import Keys
    from service.storage.server_clock import ServerClock

_STREAMS_AT_ONCE = 200
"""Maximum streams whose groups one script reads, so that it blocks the server only for a few milliseconds."""


class GroupsSeen(NamedTuple):
    """The consumer groups on the input of a partition."""

    pending: int
    """Number of pending entries of the worker's group."""
    positions: bytes
    """Name, number of pending entries and last delivered entry of each group, as one text. While it stays the
    same, no group has read or acknowledged an entry, so nothing more of the input can be trimmed."""


class Overview:
    """Looks at the partitions of one server, which have numbers from 0 in the order in which they were added.

    Args:
        client: client of the server.
        clock: estimate of the server's clock, which `unsettled` corrects.
    """

    def __init__(self, client: Redis, clock: ServerClock) -> None:
        self._clock = clock
        self._keys: list[Keys] = []
        self._unsettled: set[int] = set()
        """Numbers of the partitions that had open or waiting responses at the last look."""
        self._unsettled_script = scripts.Script(client, "unsettled")
        self._groups_script = scripts.Script(client, "groups")

    def add(self, keys: Keys) -> None:
        """Add a partition, which gets the next number, to those that each look covers."""
        self._keys.append(keys)

    async def unsettled(self) -> set[int]:
        """Return the numbers of the partitions with open or waiting responses, which a sweep may settle.

        Also correct the clock.

        Raises:
            SetupError: the user may not access a key of a partition.
            StorageUnavailableError: the server is unavailable.
        """
        before = sorted(self._unsettled)
        others = [n for n in range(len(self._keys)) if n not in self._unsettled]
        among_others, *counts = await self._count([*others, *before], len(others))
        found = {n for n, count in zip(before, counts, strict=True) if count}
        if among_others:
            _, *counts = await self._count(others, 0)
            found |= {n for n, count in zip(others, counts, strict=True) if count}
        self._unsettled = found
        return found

    async def _count(self, partitions: Iterable[int], together: int) -> list[int]:
        """Count which of the keys `open` and `waiting` exist, from 0 to 2 for a partition; correct the clock.

        The first number is the sum over the first `together` partitions, 0 without any. One number for each
        other partition follows.
        """
        keys = [key for n in partitions for key in (self._keys[n].open, self._keys[n].waiting)]
        with unavailable_if_away():
            now_ms, *counts = await self._unsettled_script(keys=keys, args=[together])
        self._clock.observe(now_ms)
        found: list[int] = counts
        return found

    async def groups(self) -> Sequence[GroupsSeen | None]:
        """Return the groups of each partition, in the order of the numbers.

        None stands for a partition whose input is missing, is no stream, or lacks the worker's group.

        Raises:
            SetupError: the user may not access the input of a partition.
            StorageUnavailableError: the server is unavailable.
        """
        streams = [keys.names.deltas for keys in self._keys]
        found: list[GroupsSeen | None] = []
        for first in range(0, len(streams), _STREAMS_AT_ONCE):
            some = streams[first : first + _STREAMS_AT_ONCE]
            with unavailable_if_away():
                reply = await self._groups_script(keys=some, args=[GROUP])
            found += [GroupsSeen(*each) if each else None for each in reply]
        return found
