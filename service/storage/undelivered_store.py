"""Undelivered alerts in Redis: count, list and delete them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from deltaloom.messages import UndeliveredAlert
from service.storage import foreign
from service.storage import pages as reading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames


class StoredUndelivered(NamedTuple):
    """An undelivered alert, and the id of its entry in the stream of undelivered alerts.

    The alert's `entry_id` is another one: that of its entry in the stream of alerts.
    """

    id: str
    undelivered: UndeliveredAlert


class Undelivered:
    """The stream of undelivered alerts of one partition.

    An entry that is no valid undelivered alert, such as that of another program, appears as one without
    content: with the reason `FOREIGN`, no destination and 0 attempts. It counts, and can be deleted.
    Errors of redis-py are raised unchanged.
    """

    def __init__(self, client: Redis, names: StreamNames) -> None:
        self._client = client
        self._stream = names.undelivered

    async def count(self) -> int:
        """Return the number of undelivered alerts."""
        return int(await self._client.xlen(self._stream))

    async def newest_first(self) -> AsyncIterator[StoredUndelivered]:
        """Yield the undelivered alerts that exist when the iteration begins, the newest first."""
        async for entry in reading.backwards(self._client, self._stream):
            yield _stored(entry)

    async def oldest_first(self) -> AsyncIterator[StoredUndelivered]:
        """Yield the undelivered alerts that exist when the iteration begins, the oldest first."""
        async for entry in reading.forwards(self._client, self._stream):
            yield _stored(entry)

    async def get(self, entry_id: str) -> StoredUndelivered | None:
        """Return the undelivered alert with an entry id of this stream, or None if it does not exist."""
        entry = await reading.entry(self._client, self._stream, entry_id)
        return None if entry is None else _stored(entry)

    async def drop(self, entry_id: str) -> bool:
        """Delete the undelivered alert with an entry id of this stream; return whether it existed."""
        return bool(await self._client.xdel(self._stream, entry_id))


def _stored(entry: reading.StreamEntry) -> StoredUndelivered:
    entry_id, fields = entry
    values = {
        name.decode("utf-8", "backslashreplace"): value.decode("utf-8", "backslashreplace")
        for name, value in fields.items()
    }
    try:
        return StoredUndelivered(entry_id, UndeliveredAlert.model_validate(values))
    except ValidationError:
        undelivered = UndeliveredAlert(
            destination="",
            reason=foreign.FOREIGN,
            answer=foreign.WHAT_IT_IS,
            attempts=0,
            failed_at=foreign.came_at(entry_id),
            entry_id=entry_id,
        )
        return StoredUndelivered(entry_id, undelivered)
