"""Follow a stream: every entry from a place on, for ever, also across a restart of the server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from redis import exceptions

from service.cli.output import note
from service.storage.reading import entries_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from service.storage.reading import StreamEntry

BEGINNING = "0-0"

_BLOCK_MS = 1000
_AT_ONCE = 100
_RETRY_AFTER = 0.5
_AWAY = (exceptions.ConnectionError, exceptions.TimeoutError)


def end_of(client: Redis, stream: str) -> str:
    """The id of the stream's last entry: what comes after it is new."""
    newest = entries_of(client.xrevrange(stream, count=1))
    return newest[0][0] if newest else BEGINNING


def follow(client: Redis, stream: str, after: str) -> Iterator[StreamEntry]:
    """The entries after an id, as they come. While the server is away it waits, and says so once."""
    away = False
    while True:
        try:
            replies: Any = client.xread({stream: after}, count=_AT_ONCE, block=_BLOCK_MS)
        except _AWAY:
            if not away:
                note("the server is away, waiting for it")
            away = True
            time.sleep(_RETRY_AFTER)
            continue
        away = False
        for _, entries in replies:
            for entry in entries_of(entries):
                after = entry[0]
                yield entry
