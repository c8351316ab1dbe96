"""Follow streams: yield every entry after a position, forever and across restarts of the server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from service.cli.output import note
from service.ports.storage import SetupError, StorageUnavailableError
from service.storage.client.availability import unavailable_if_away
from service.storage.pages import entries_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from redis import Redis

    from service.storage.pages import StreamEntry

BEGINNING = "0-0"

_BLOCK_MS = 1000
_AT_ONCE = 20
_RETRY_AFTER = 0.5
_LOOK_AGAIN_AFTER = 0.1


def ends_of(client: Redis, streams: Iterable[str]) -> dict[str, str]:
    """Return the id of each stream's last entry; later entries are new."""
    return {stream: _end_of(client, stream) for stream in streams}


def _end_of(client: Redis, stream: str) -> str:
    newest = entries_of(client.xrevrange(stream, count=1))
    return newest[0][0] if newest else BEGINNING


def follow(client: Redis, after: dict[str, str], *, apart: bool = False) -> Iterator[tuple[str, StreamEntry]]:
    """Yield entries of several streams, each with its stream, as they arrive.

    While the server is unavailable, wait, and print a note once.

    Args:
        client: client of the server.
        after: streams, and the entry id after which to begin in each.
        apart: true if the streams may be on different servers, so that one command cannot wait for all.
    """
    places, away = dict(after), False
    while True:
        try:
            with unavailable_if_away():
                found = _look(client, places) if apart else _wait(client, places)
        except SetupError:
            raise
        except StorageUnavailableError:
            if not away:
                note("the server is unavailable, waiting for it")
            away = True
            time.sleep(_RETRY_AFTER)
            continue
        away = False
        for stream, entry in found:
            places[stream] = entry[0]
            yield stream, entry


def _wait(client: Redis, places: dict[str, str]) -> list[tuple[str, StreamEntry]]:
    """Wait for the next entries of any of the streams, up to a second."""
    asked: Any = dict(places)
    replies: Any = client.xread(asked, count=_AT_ONCE, block=_BLOCK_MS)
    return [(name.decode(), entry) for name, entries in replies for entry in entries_of(entries)]


def _look(client: Redis, places: dict[str, str]) -> list[tuple[str, StreamEntry]]:
    """Return the present entries of each stream; if there are none, pause briefly."""
    found = [
        (stream, entry)
        for stream, after in places.items()
        for entry in entries_of(client.xrange(stream, min=f"({after}", count=_AT_ONCE))
    ]
    if not found:
        time.sleep(_LOOK_AGAIN_AFTER)
    return found
