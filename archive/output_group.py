"""The archive's consumer group on an output stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from redis import exceptions

from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

CLAIMED_AT_ONCE = 100
"""Maximum entries of one claim; with long texts they are some megabytes."""


class OutputStream(NamedTuple):
    """An output stream of a partition."""

    name: str
    family: str
    """Family of its records."""
    prefix: str


class ClaimedPage(NamedTuple):
    """Entries that another consumer had left pending."""

    cursor: str
    """Beginning of the next page; `0-0` after the last one."""
    entries: list[tuple[bytes, list[bytes]]]
    """Ids, and names and values, alternating."""
    lost: int
    """Number of entries that were trimmed before they were archived."""


class OutputGroup:
    """The consumer group on one stream; its methods raise `StorageUnavailableError` while Redis is away.

    Args:
        client: client of the server.
        stream: the stream.
        group: name of the group.
        consumer: name of this process in the group.
    """

    def __init__(self, client: Redis, stream: OutputStream, group: str, consumer: str) -> None:
        self._client = client
        self._stream = stream.name
        self._group = group
        self._consumer = consumer

    async def ensure(self) -> None:
        """Create the group at the beginning of the stream, unless it exists."""
        with unavailable_if_away(self._stream):
            try:
                await self._client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def acknowledge(self, entry_ids: Sequence[bytes]) -> None:
        """Acknowledge entries. It does nothing if the group is gone: they will be read again."""
        with unavailable_if_away(self._stream):
            await self._client.xack(self._stream, self._group, *entry_ids)

    async def claim(self, idle_ms: int, cursor: str) -> ClaimedPage:
        """Claim entries that have been pending for `idle_ms`, from a cursor on."""
        with unavailable_if_away(self._stream):
            try:
                reply: Any = await self._client.xautoclaim(
                    self._stream, self._group, self._consumer, idle_ms, cursor, count=CLAIMED_AT_ONCE
                )
            except exceptions.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                return ClaimedPage("0-0", [], 0)  # the reader creates the group again
        next_cursor, entries, gone = reply
        flat = [
            (entry_id, [part for field in fields.items() for part in field]) for entry_id, fields in entries
        ]
        return ClaimedPage(next_cursor.decode(), flat, len(gone))
