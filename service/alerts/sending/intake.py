"""What is owed of one stream, each entry once and in order, though replies get lost and others read along.

A group gives its entries out in the order of the stream. What was given out and did not arrive - the reply
was lost, or a relay that has lost its lease without knowing was asking too - therefore lies between the last
entry that arrived and the next one, and is owed: there it is looked for before the next one is passed on.
What lies behind the last one is looked for now and then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from service import logs
from service.ports.outbox import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from handlers.core.identity import EntryId
    from service.patience import Patience
    from service.ports.outbox import Outbox, Owed

STRAYS_AFTER_MS: Final = 5000
"""What was given out for so long has not arrived and will not."""


class Intake:
    """The entries of one stream for one destination.

    Args:
        stream: its name.
        outbox: where what is owed is looked for.
        patience: what waits for Redis.
        take: takes entries that have not been taken; comes back when there is room for more.
    """

    def __init__(
        self,
        stream: str,
        outbox: Outbox,
        patience: Patience,
        take: Callable[[Sequence[Owed]], Awaitable[None]],
    ) -> None:
        self.stream = stream
        self._outbox = outbox
        self._patience = patience
        self._take = take
        self._seen = BEGINNING
        """All that was given out until here has been taken."""
        self._turn = asyncio.Lock()

    async def inherit(self) -> None:
        """Take what is owed already, to the last one."""
        async with self._turn:
            await self._collect(None)

    async def take(self, entries: Sequence[Owed]) -> None:
        """Take entries that were just read, and before them those that were given out and did not arrive."""
        async with self._turn:
            await self._collect(entries[0].place.id)
            fresh = [entry for entry in entries if entry.place.id > self._seen]
            if fresh:
                self._seen = fresh[-1].place.id
                await self._take(fresh)

    async def take_strays(self) -> None:
        """Take what was given out some time ago, and did not arrive."""
        async with self._turn:
            await self._collect(None, STRAYS_AFTER_MS)

    async def _collect(self, before: EntryId | None, idle_ms: int = 0) -> None:
        more = before is None or self._seen < before
        while more:
            page = await self._patience.until_done(
                self._outbox.owed, self.stream, self._seen, before, idle_ms
            )
            if page.lost:
                logs.logger().error("alerts were trimmed before they were delivered", alerts=page.lost)
            self._seen, more = page.upto, page.more
            if page.entries:
                await self._take(page.entries)
