"""Read the newest entries of the streams of all partitions, in one order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from console.console_errors import bad_request
from handlers.core.identity import EntryId
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

    from deltaloom.streams import StreamNames

_LEAST: Final = 5
"""Minimum entries that are read of each partition."""

_CURSOR: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")

_FIRST_ENTRIES: Final = 10
"""Maximum entries of each stream in the first read; each further one has more."""

_LARGE: Final = 32 * 2**20
"""Bytes after which no more is read, since an entry may have megabytes."""

_Entries = list[tuple[bytes, dict[bytes, bytes]]]

_HIGHEST: Final = 2**64 - 1
"""Maximum of each number of an entry's id."""


class NewestEntry(NamedTuple):
    """An entry and its partition."""

    id: EntryId
    names: StreamNames
    fields: dict[bytes, bytes]

    @property
    def data(self) -> bytes:
        """The JSON of its message; empty without one."""
        return self.fields.get(b"__data__", b"")


class NewestPage(NamedTuple):
    """Entries, the newest first."""

    entries: Sequence[NewestEntry]
    next: str | None
    """Cursor of the next page; None after the last one."""


def cursor_of(text: str | None) -> str | None:
    """Return a cursor that a client gives back.

    Raises:
        ConsoleError: it is none.
    """
    if text is None:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None or not 0 < max(map(int, found.groups())) <= _HIGHEST:  # nothing is before 0-0
        raise bad_request("before is the value of next in the page before")
    return text


async def newest_entries(
    client: Redis,
    partitions: Sequence[StreamNames],
    stream_of: Callable[[StreamNames], str],
    most: int,
    before: str | None = None,
) -> NewestPage:
    """Return about `most` entries of a stream of all partitions, the newest first.

    Args:
        client: client of the server.
        partitions: the partitions.
        stream_of: returns the name of the stream in a partition.
        most: number of entries that are wanted; there may be some more or fewer.
        before: cursor of the page; None for the newest.
    """
    count = max(_LEAST, 2 * most // len(partitions)) if len(partitions) > 1 else most
    streams = [stream_of(names) for names in partitions]
    found: list[NewestEntry] = []
    floor = EntryId(0, 0)
    """Id below which a partition may have entries that were not read."""
    for names, (reply, are_all) in zip(partitions, await _pages(client, streams, count, before), strict=True):
        entries = [NewestEntry(EntryId.parse(name.decode()), names, fields) for name, fields in reply]
        if entries and not are_all:
            floor = max(floor, entries[-1].id)
        found += entries
    found.sort(key=lambda entry: entry.id, reverse=True)
    sure = [entry for entry in found if entry.id >= floor]
    if len(sure) > most:
        last = sure[most - 1].id
        sure = [entry for entry in sure if entry.id >= last]
    has_more = len(sure) < len(found) or floor > EntryId(0, 0)
    return NewestPage(sure, str(sure[-1].id) if sure and has_more else None)


async def _pages(
    client: Redis, streams: Sequence[str], most: int, before: str | None
) -> list[tuple[_Entries, bool]]:
    """Return at most `most` entries of each stream, fewer if they are large, and whether these are all.

    A key that is no stream has none: the page Health names it.
    """
    found: list[_Entries] = [[] for _ in streams]
    unread = set(range(len(streams)))
    all_read: set[int] = set()
    at_once, size = min(_FIRST_ENTRIES, most), 0
    while unread and size < _LARGE:
        pipeline, asked = client.pipeline(transaction=False), sorted(unread)
        counts = [min(at_once, most - len(found[each])) for each in asked]
        for each, count in zip(asked, counts, strict=True):
            after = found[each][-1][0].decode() if found[each] else before
            pipeline.xrevrange(streams[each], max="+" if after is None else f"({after}", count=count)
        for each, count, reply in zip(asked, counts, await replies_of(pipeline), strict=True):
            entries: _Entries = reply or []
            found[each] += entries
            size += size_of(entries)
            if len(entries) < count:
                all_read.add(each)
            if len(entries) < count or len(found[each]) >= most:
                unread.discard(each)
        at_once *= 4
    return [(entries, number in all_read) for number, entries in enumerate(found)]


async def replies_of(pipeline: Pipeline) -> list[Any]:
    """Return the replies to the commands of a pipeline; None for a key of another type.

    Raises:
        StorageUnavailableError: the server is away, or refuses a command.
    """
    with unavailable_if_away():
        replies = await pipeline.execute(raise_on_error=False)
        for each in replies:
            if isinstance(each, Exception) and not str(each).startswith("WRONGTYPE"):
                raise each
    return [None if isinstance(each, Exception) else each for each in replies]


def size_of(entries: _Entries) -> int:
    """Return the total bytes of the values of entries."""
    return sum(len(value) for _, fields in entries for value in fields.values())
