"""Batches in hand at once: while the server works for one, Python works for the next.

A batch is mostly decoding (this process) and two scripts (the server). One after the other, each of the two
would wait for the other half of the time. That batches overtake each other changes nothing: they might as
well be in the hands of two workers.

A small batch is waited for. Whoever takes the next one at once takes a small one again, and pays for every
batch what only large ones earn back: with what comes meanwhile there is less to do, and it is done sooner.
Where only one may be in hand, every batch is waited for.

A batch is to be done soon, since texts of later entries wait for it, in all workers. So a batch after a slow
one has fewer entries.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from service import logs
from service.cancelling import cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.pipeline.gathering import Gathering


LARGE_ENTRIES, LARGE_BYTES = 1000, 256 * 1024
"""A batch of so many entries, or of so many bytes, is large; and one with dear entries, which take long."""

BATCH_SECONDS = 0.25
"""Seconds that a batch should take at most."""

_CLOCK_TICK = 1e-6

ENTRIES_AT_LEAST = 500
"""Entries that a batch may have, however slow the latest one was."""


class Ahead:
    """Takes batches, several at once."""

    def __init__(self, take: Callable[[Gathering], Awaitable[None]], at_once: int) -> None:
        self._take = take
        self._at_once = at_once
        self._rate = math.inf
        """Entries a second of the latest batch."""
        self._no_more = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def entries_at_most(self) -> int | None:
        """How many entries the next batch should have, as fast as the latest one was; None: any number."""
        if math.isinf(self._rate):
            return None
        return max(ENTRIES_AT_LEAST, round(self._rate * BATCH_SECONDS))

    async def take(self, gathering: Gathering) -> None:
        """Begin with a batch when fewer than `at_once` are in hand.

        Wait for its end if it is small, or if there may be only one in hand. After
        `wait_no_more`, begin with it at once and wait for nothing.
        """
        while len(self._tasks) >= self._at_once and not self._no_more.done():
            await asyncio.wait({*self._tasks, self._no_more}, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._to_the_end(gathering))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._at_once == 1 or not _is_large(gathering):
            # Who stops waiting does not stop it.
            await asyncio.wait({task, self._no_more}, return_when=asyncio.FIRST_COMPLETED)

    def wait_no_more(self) -> None:
        """Wait for no batch any more: the reader is to end, and `drain` waits for them."""
        if not self._no_more.done():
            self._no_more.set_result(None)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - what is not done then is left pending
        """Wait for the batches in hand, so many seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    async def let_go(self) -> None:
        """End the batches in hand, which stay pending."""
        await cancelled(*self._tasks)

    async def _to_the_end(self, gathering: Gathering) -> None:
        began = time.monotonic()
        try:
            await self._take(gathering)
        except Exception:  # noqa: BLE001 - logged; its entries stay pending, and are taken over like a dead worker's
            logs.logger().exception("batch failed")
        else:
            self._rate = len(gathering) / max(time.monotonic() - began, _CLOCK_TICK)


def _is_large(gathering: Gathering) -> bool:
    return len(gathering) >= LARGE_ENTRIES or gathering.size >= LARGE_BYTES or gathering.has_dear
