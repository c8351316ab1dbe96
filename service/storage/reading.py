"""Read a stream in pages, however long it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

StreamEntry = tuple[str, dict[bytes, bytes]]
"""An entry's id and fields."""

PAGE = 500


def entries_of(reply: Any) -> list[StreamEntry]:
    """The entries in a reply of a client that gives bytes."""
    return [(entry_id.decode(), fields) for entry_id, fields in reply]


async def newest_id(client: Redis, stream: str) -> str | None:
    """The id of the last entry; None if there is none."""
    newest = entries_of(await client.xrevrange(stream, count=1))
    return newest[0][0] if newest else None


async def entry(client: Redis, stream: str, entry_id: str) -> StreamEntry | None:
    """One entry; None if it is not there (any more)."""
    found = entries_of(await client.xrange(stream, min=entry_id, max=entry_id))
    return found[0] if found else None


async def forwards(client: Redis, stream: str) -> AsyncIterator[StreamEntry]:
    """The entries that are there now, the oldest first; what is added meanwhile is left out."""
    first, last = "-", await newest_id(client, stream)
    while last is not None:
        page = entries_of(await client.xrange(stream, min=first, max=last, count=PAGE))
        for each in page:
            yield each
        if len(page) < PAGE:
            return
        first = f"({page[-1][0]}"


async def backwards(client: Redis, stream: str) -> AsyncIterator[StreamEntry]:
    """The entries, the newest first."""
    last = "+"
    while True:
        page = entries_of(await client.xrevrange(stream, max=last, count=PAGE))
        for each in page:
            yield each
        if len(page) < PAGE:
            return
        last = f"({page[-1][0]}"
