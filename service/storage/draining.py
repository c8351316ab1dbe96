"""The request in Redis that all workers of a deployment stop reading, and the work that is left then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from deltaloom.streams import GROUP
from service.keys import Keys
from service.ports.outbox import RELAY_PREFIX
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.pages import groups_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions, StreamNames

_READS_EVERY_MS = 3000
"""Maximum ms between two reads of a worker, even if no entry comes: the longest block time plus a second."""


class DrainRequest:
    """The request to stop reading: one key for all partitions, which expires.

    Errors of redis-py pass through `make` and `withdraw` unchanged.

    Args:
        client: client of the server of the first partition.
        names: names of the first partition.
    """

    def __init__(self, client: Redis, names: StreamNames) -> None:
        self._client = client
        self._key = Keys(names).draining

    async def until(self) -> str | None:
        """Return the time at which the request ends, as passed to `make`; None if there is no request.

        Raises:
            SetupError: the user may not read the key, or it has another type.
            StorageUnavailableError: the server is unavailable.
        """
        with unavailable_if_away():
            until = cast("bytes | None", await self._client.get(self._key))
        return None if until is None else until.decode(errors="replace")

    async def make(self, seconds: int, until: str) -> None:
        """Ask all workers to stop reading for `seconds`, and replace an earlier request.

        `until` is the time at which the request ends, as a text for people.
        """
        await self._client.set(self._key, until, ex=seconds)

    async def withdraw(self) -> bool:
        """Delete the request, so that the workers read again; return whether there was one."""
        return bool(await self._client.delete(self._key))


class LeftOver(NamedTuple):
    """Work that is left to do, in one partition or several."""

    unread: int | None
    """Entries of the input that no worker has read; None if the server cannot count them."""
    pending: int
    """Entries that a worker has read but not acknowledged."""
    open: int
    """Responses that have begun and whose end is not settled; some may be in `waiting` too."""
    waiting: int
    """Responses with a closed text that waits for other entries."""
    alerts: int | None
    """Alerts that a relay has yet to deliver, summed over all destinations, so that an alert for two counts
    twice; None if the server cannot count them."""
    reading: int
    """Workers that have read within the last 3 seconds, even if they got no entry. Of several partitions, the
    highest number, not the sum."""


async def left_over(client: Redis, partitions: Partitions) -> LeftOver:
    """Return the work that is left in all partitions: the sum of each number, but the highest `reading`.

    A sum is None if the number of one partition is. Errors of redis-py are raised unchanged.
    """
    found = await asyncio.gather(*(_left_over(client, names) for names in partitions.all))
    return LeftOver(
        _total(each.unread for each in found),
        sum(each.pending for each in found),
        sum(each.open for each in found),
        sum(each.waiting for each in found),
        _total(each.alerts for each in found),
        max(each.reading for each in found),
    )


async def _left_over(client: Redis, names: StreamNames) -> LeftOver:
    keys = Keys(names)
    group = next(
        (each for each in await groups_of(client, names.deltas) if each["name"] == GROUP.encode()), None
    )
    prefix = RELAY_PREFIX.encode()
    relays = [each for each in await groups_of(client, names.alerts) if each["name"].startswith(prefix)]
    return LeftOver(
        await _unread(client, names.deltas, group),
        group["pending"] if group else 0,
        int(await client.zcard(keys.open)),
        int(await client.zcard(keys.waiting)),
        _total(None if each["lag"] is None else each["lag"] + each["pending"] for each in relays),
        await _reading(client, names.deltas) if group else 0,
    )


async def _unread(client: Redis, stream: str, group: dict[str, Any] | None) -> int | None:
    """Return the number of entries that `group` has not read, or of all entries if `group` is None.

    `group` is from a reply of XINFO GROUPS. After XDEL, the server may not know the number. Then return 0 if
    no entry is unread, else None.
    """
    if group is None:
        return int(await client.xlen(stream))
    if group["lag"] is not None:
        return int(group["lag"])
    look = scripts.Script(client, "unread")
    return None if await look(keys=[stream], args=[group["last-delivered-id"].decode()]) else 0


async def _reading(client: Redis, stream: str) -> int:
    """Return the number of consumers of the worker's group that have read within `_READS_EVERY_MS`.

    A read that got no entry counts too.
    """
    consumers = await client.xinfo_consumers(stream, GROUP)
    return sum(each["idle"] < _READS_EVERY_MS for each in consumers)


def _total(numbers: Iterable[int | None]) -> int | None:
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total
