"""Access to streams in tests, with bytes in and out, where redis-py's types allow more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from service.ports.storage import RawEntry
from service.storage.records import entry_of_letter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from deltaloom.messages import DeadLetter

Fields = dict[bytes, bytes]


async def add(redis: Redis, stream: str, fields: Mapping[str, str | bytes], entry_id: str = "*") -> str:
    """Append an entry, and return its id."""
    added = await redis.xadd(stream, cast("dict[Any, Any]", fields), id=entry_id)
    return cast("bytes", added).decode()


def letter_fields(letter: DeadLetter, prefix: str) -> dict[str, str]:
    """Return the fields of a dead letter's entry, as a worker writes it under this prefix."""
    fields = entry_of_letter(letter, prefix)
    return dict(zip(fields[::2], fields[1::2], strict=True))


async def entries(redis: Redis, stream: str) -> list[tuple[str, Fields]]:
    """Return all entries of a stream."""
    reply = cast("list[tuple[bytes, Fields]]", await redis.xrange(stream))
    return [(entry_id.decode(), fields) for entry_id, fields in reply]


async def read_as(
    redis: Redis, stream: str, group: str, consumer: str, count: int
) -> list[tuple[bytes, Fields]]:
    """Return the next entries that the group delivers to a consumer."""
    reply = await redis.xreadgroup(group, consumer, {stream: ">"}, count=count)
    streams = cast("list[tuple[bytes, list[tuple[bytes, Fields]]]]", reply)
    return [entry for _, read in streams for entry in read]


def raw(entry_id: bytes, fields: Fields) -> RawEntry:
    """Return an entry in the form that the server replies with."""
    return RawEntry(entry_id, [value for field in fields.items() for value in field])
