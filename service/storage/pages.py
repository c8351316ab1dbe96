"""Read a stream of any length, page by page, and the list of its groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

StreamEntry = tuple[str, dict[bytes, bytes]]
"""An entry's id and fields."""

PAGE = 500
"""Maximum entries of a page."""

_FIRST_PAGE, _PAGE_BYTES = 20, 4 * 1024 * 1024
"""Entries of the first page, and approximate maximum bytes of a later one: an entry may have megabytes."""


def entries_of(reply: Any) -> list[StreamEntry]:
    """Return the entries in an XRANGE reply of a client without `decode_responses`."""
    return [(entry_id.decode(), fields) for entry_id, fields in reply]


async def groups_of(client: Redis, stream: str) -> list[dict[str, Any]]:
    """Return the groups of a stream as XINFO GROUPS describes them; [] if the stream is missing."""
    try:
        infos: list[dict[str, Any]] = await client.xinfo_groups(stream)
    except ResponseError as error:
        if "no such key" not in str(error):
            raise
        return []
    return infos


async def newest_id(client: Redis, stream: str) -> str | None:
    """Return the id of the last entry, or None if the stream is empty or missing."""
    newest = entries_of(await client.xrevrange(stream, count=1))
    return newest[0][0] if newest else None


async def entry(client: Redis, stream: str, entry_id: str) -> StreamEntry | None:
    """Return the entry with an id, or None if it does not exist."""
    found = entries_of(await client.xrange(stream, min=entry_id, max=entry_id))
    return found[0] if found else None


async def forwards(client: Redis, stream: str) -> AsyncIterator[StreamEntry]:
    """Yield the entries that exist when the iteration begins, the oldest first."""
    first, last, count = "-", await newest_id(client, stream), _FIRST_PAGE
    while last is not None:
        page = entries_of(await client.xrange(stream, min=first, max=last, count=count))
        for each in page:
            yield each
        if len(page) < count:
            return
        first, count = f"({page[-1][0]}", _next_count(page)


async def backwards(client: Redis, stream: str) -> AsyncIterator[StreamEntry]:
    """Yield the entries that exist when the iteration begins, the newest first."""
    last, count = "+", _FIRST_PAGE
    while True:
        page = entries_of(await client.xrevrange(stream, max=last, count=count))
        for each in page:
            yield each
        if len(page) < count:
            return
        last, count = f"({page[-1][0]}", _next_count(page)


def _next_count(page: Sequence[StreamEntry]) -> int:
    """Return the number of entries to request for the next page, from 1 to `PAGE`.

    If they have the mean size of the entries of `page`, they have at most about `_PAGE_BYTES`.
    """
    size = sum(len(value) for _, fields in page for value in fields.values())
    return max(1, min(PAGE, _PAGE_BYTES * len(page) // (size + 1)))
