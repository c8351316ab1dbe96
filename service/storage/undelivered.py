"""Alerts that a destination did not get: look at them, and remove those that were sent again."""

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
    """An undelivered alert, and its id among them."""

    id: str
    alert: UndeliveredAlert


class Undelivered:
    """The undelivered alerts of one partition.

    Errors of the server come as redis-py raises them. An entry that another program wrote among them looks
    like one without an alert, with the reason `FOREIGN`.
    """

    def __init__(self, client: Redis, names: StreamNames) -> None:
        self._client = client
        self._stream = names.undelivered

    async def count(self) -> int:
        """How many there are."""
        return int(await self._client.xlen(self._stream))

    async def newest_first(self) -> AsyncIterator[StoredUndelivered]:
        """All of them."""
        async for entry in reading.backwards(self._client, self._stream):
            yield _stored(entry)

    async def oldest_first(self) -> AsyncIterator[StoredUndelivered]:
        """Those that are there now."""
        async for entry in reading.forwards(self._client, self._stream):
            yield _stored(entry)

    async def get(self, entry_id: str) -> StoredUndelivered | None:
        """One of them; None if it is not there (any more)."""
        entry = await reading.entry(self._client, self._stream, entry_id)
        return None if entry is None else _stored(entry)

    async def drop(self, entry_id: str) -> bool:
        """Remove one; whether it was there."""
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
