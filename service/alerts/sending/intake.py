"""Take the pending alerts of one stream once and in order, despite lost replies and concurrent readers.

A consumer group gives out entries in stream order. An entry may be read for the group and not reach this
process: the reply was lost, or a relay that had lost its lease without knowing read it. Such an orphaned
entry is pending. Since a batch is the reply of a single read, the entry lies between two batches. So the
intake looks for pending entries there before it passes on the next batch, and regularly behind the last one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from service import logs
from service.ports.outbox import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from handlers.core.identity import EntryId
    from service.ports.outbox import Outbox, PendingAlert
    from service.retrying import RetryUntilAvailable

ORPHANED_AFTER_MS: Final = 5000
"""Milliseconds after it was read for the group at which an entry that has not arrived counts as orphaned."""


class Intake:
    """The entries of one stream for one destination.

    Args:
        stream: name of the stream.
        outbox: the destination's pending alerts.
        retrying: repeats outbox calls while Redis is unavailable.
        receive: receives entries that were not passed on before; returns when there is room for more.
    """

    def __init__(
        self,
        stream: str,
        outbox: Outbox,
        retrying: RetryUntilAvailable,
        receive: Callable[[Sequence[PendingAlert]], Awaitable[None]],
    ) -> None:
        self.stream = stream
        self._outbox = outbox
        self._retrying = retrying
        self._receive = receive
        self._seen = BEGINNING
        """Id up to which all entries read for the group have been passed on."""
        self._lock = asyncio.Lock()

    async def pass_on_pending(self) -> None:
        """Pass on all entries that are pending already."""
        async with self._lock:
            await self._collect(None)

    async def pass_on(self, entries: Sequence[PendingAlert]) -> None:
        """Pass on entries that were just read, and before them the orphaned ones."""
        async with self._lock:
            await self._collect(entries[0].ref.id)
            fresh = [entry for entry in entries if entry.ref.id > self._seen]
            if fresh:
                self._seen = fresh[-1].ref.id
                await self._receive(fresh)

    async def pass_on_orphaned(self) -> None:
        """Pass on entries that were read more than `ORPHANED_AFTER_MS` ago and did not arrive."""
        async with self._lock:
            await self._collect(None, ORPHANED_AFTER_MS)

    async def _collect(self, before: EntryId | None, idle_ms: int = 0) -> None:
        """Pass on, page by page, the pending entries after `_seen`.

        Args:
            before: id before which they are, or None for all.
            idle_ms: minimum milliseconds since they were read.
        """
        more = before is None or self._seen < before
        while more:
            page = await self._retrying.call(
                self._outbox.pending_page, self.stream, self._seen, before, idle_ms
            )
            if page.lost:
                logs.logger().error("alerts were trimmed before they were delivered", alerts=page.lost)
            self._seen, more = page.upto, page.more
            if page.entries:
                await self._receive(page.entries)
