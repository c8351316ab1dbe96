"""Undelivered alerts in Redis: list them, and delete those that were sent again."""

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
    """An undelivered alert and the id of its entry."""

    id: str
    undelivered: UndeliveredAlert


class Undelivered:
    """The undelivered alerts of one partition.

    Errors of redis-py are raised unchanged. An entry that another program wrote to the stream appears as an
    undelivered alert without content, with the reason `FOREIGN`.
    """

    def __init__(self, client: Redis, names: StreamNames) -> None:
        self._client = client
        self._stream = names.undelivered

    async def count(self) -> int:
        """Return the number of undelivered alerts."""
        return int(await self._client.xlen(self._stream))

    async def newest_first(self) -> AsyncIterator[StoredUndelivered]:
        """Yield the undelivered alerts that exist at the beginning, the newest first."""
        async for entry in reading.backwards(self._client, self._stream):
            yield _stored(entry)

    async def oldest_first(self) -> AsyncIterator[StoredUndelivered]:
        """Yield the undelivered alerts that exist at the beginning, the oldest first."""
        async for entry in reading.forwards(self._client, self._stream):
            yield _stored(entry)

    async def get(self, entry_id: str) -> StoredUndelivered | None:
        """Return the undelivered alert with an entry id, or None if it does not exist."""
        entry = await reading.entry(self._client, self._stream, entry_id)
        return None if entry is None else _stored(entry)

    async def drop(self, entry_id: str) -> bool:
        """Delete the undelivered alert with an entry id; return whether it existed."""
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
