"""Decode entries of the input as a worker does, without storing anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from handlers.core.routing import RoutingTable
from service.bus.envelope import open_entry
from service.handler_packages import enabled_names, known_handlers
from service.pipeline.batch import Batch
from service.pipeline.decoded_batch import EVENT, DecodedBatch, size_of
from service.pipeline.event_router import EventRouter
from service.ports.storage import RawEntry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from deltaloom.streams import StreamNames
    from service.ports.commit import Commit
    from service.settings import Settings

_AT_ONCE: Final = 200
"""Entries that are decoded before others get their turn: about 5 ms."""

_LARGE: Final = 128 * 1024
"""Bytes of entries from which they are decoded in a thread."""


def table_of(settings: Settings) -> RoutingTable:
    """Return the handlers that the settings enable, and that of answers: a person wants to see them."""
    known = known_handlers()
    names = dict.fromkeys((*enabled_names(settings.handlers, known), "output_text"))
    return RoutingTable(known[name] for name in names if name in known)


def raw_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> RawEntry:
    """Return an entry with its event first, where the fast path looks for it."""
    flat = [EVENT, fields[EVENT]] if EVENT in fields else []
    for name, value in fields.items():
        if name != EVENT:
            flat += (name, value)
    return RawEntry(entry_id, flat)


class DeltaDecoder:
    """Decodes the entries of a partition into their effects.

    Args:
        table: the handlers.
        names: names of the partition.
        settings: limits of events.
    """

    def __init__(self, table: RoutingTable, names: StreamNames, settings: Settings) -> None:
        self._router = EventRouter(
            table,
            open_entry,
            stream=names.deltas,
            max_event_bytes=settings.max_event_bytes,
            max_array_length=settings.max_array_length,
            max_response_parts=settings.max_response_parts,
        )

    async def commits(self, entries: Sequence[RawEntry], now_ms: int) -> AsyncIterator[Commit]:
        """Yield the effects of entries, some entries at a time."""
        for first in range(0, len(entries), _AT_ONCE):
            some = entries[first : first + _AT_ONCE]
            if sum(map(size_of, some)) > _LARGE:
                yield await asyncio.to_thread(self._commit, some, now_ms)
            else:
                yield self._commit(some, now_ms)
                await asyncio.sleep(0)

    def _commit(self, entries: Sequence[RawEntry], now_ms: int) -> Commit:
        decoded = DecodedBatch.of(self._router.rules, entries)
        return Batch(decoded, self._router, now_ms=now_ms).commit
