"""Process several batches at once: while the server works on one, Python works on the next.

A batch is mostly decoding (in this process) and some calls of scripts (in the server). Sequentially, each
side would be idle half of the time. Batches may overtake each other, as the batches of two workers may.

A large batch begins only after the next read was sent. Otherwise the server would get the read after the
batch's commit, and this process would wait for both.

`schedule` waits for the end of a small batch before the next one is read. Otherwise the next batch would be
small again, and each batch has a fixed cost. Entries that arrive during the wait make the next batch larger,
which is cheaper in sum. If only one batch may be in progress, `schedule` waits for every batch.

Until a batch ends, texts of later entries wait, in all workers: the low-water mark stays before it. So a
batch should take at most `BATCH_SECONDS`, and after a slow batch the next one gets fewer entries.

Each column of a batch has a fixed cost. If many responses are open on a slow machine, this cost alone may
take `BATCH_SECONDS`. Then smaller batches would make each entry more expensive, and the worker would fall
further behind. So a batch may always have `ENTRIES_A_COLUMN` entries for each column of the latest one, up to
`COLUMN_ENTRIES_AT_MOST`.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from service import logs
from service.cancelling import cancel
from service.under_way import Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.pipeline.batch_builder import BatchBuilder


LARGE_BATCH_ENTRIES, LARGE_BYTES = 1000, 256 * 1024
"""Minimum entries and bytes of a large batch: one of the two is enough. A batch whose builder has deferred
entries, such as large ones, is large too, since it takes long."""

BATCH_SECONDS = 0.25
"""Maximum seconds that a batch should take."""

_TURNS = 3
"""Turns of the event loop before a large batch begins: the subscriber asks for the next batch, the reader
sends its read, and uvloop writes it at the end of a turn."""

_CLOCK_TICK = 1e-6
"""Minimum seconds of a measured batch, so that the rate stays finite."""

ENTRIES_AT_LEAST = 500
"""Lowest value of `entries_at_most`, so that a slow batch does not make the next ones tiny."""

ENTRIES_A_COLUMN, COLUMN_ENTRIES_AT_MOST = 3, 2000
"""Entries that a batch may always have for each column of the latest batch; the maximum of this product."""


class BatchScheduler:
    """Processes batches in tasks: large ones overlap, and `schedule` waits for the end of a small one.

    At most `at_once` batches are in progress. With an `at_once` of 1, `schedule` waits for the end of every
    batch. After `stop_waiting` it waits for none, and more than `at_once` batches may be in progress.
    """

    def __init__(
        self, process: Callable[[BatchBuilder], Awaitable[None]], at_once: int, stream: str = "input"
    ) -> None:
        self._process = process
        self._at_once = at_once
        self._stream = stream
        self._rate = math.inf
        """Entries per second of the latest batch; infinite before the first one."""
        self._columns = 0
        """Columns of the latest batch."""
        self._stopping = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def entries_at_most(self) -> int | None:
        """Maximum entries that the next batch should have, so that it takes about `BATCH_SECONDS`.

        It follows from the entries per second of the batch that last ended without an error. It is at least
        `ENTRIES_AT_LEAST`, and at least `ENTRIES_A_COLUMN` for each column of that batch, up to
        `COLUMN_ENTRIES_AT_MOST`. None means no limit: no batch has ended without an error yet.
        """
        if math.isinf(self._rate):
            return None
        of_columns = min(ENTRIES_A_COLUMN * self._columns, COLUMN_ENTRIES_AT_MOST)
        return max(ENTRIES_AT_LEAST, of_columns, round(self._rate * BATCH_SECONDS))

    async def schedule(self, builder: BatchBuilder) -> None:
        """Start a batch as soon as fewer than `at_once` are in progress.

        Return when it has started or, if it is small or `at_once` is 1, when it has ended. After
        `stop_waiting`, start it at once and return without waiting. An error of a batch is logged, not
        raised; its entries stay pending.
        """
        while len(self._tasks) >= self._at_once and not self._stopping.done():
            await asyncio.wait({*self._tasks, self._stopping}, return_when=asyncio.FIRST_COMPLETED)
        is_waited_for = self._at_once == 1 or not _is_large(builder)
        task = asyncio.create_task(self._to_the_end(builder, 0 if is_waited_for else _TURNS))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if is_waited_for:
            # Cancelling the wait does not cancel the batch.
            await asyncio.wait({task, self._stopping}, return_when=asyncio.FIRST_COMPLETED)

    def stop_waiting(self) -> None:
        """End all present and future waits in `schedule`, so that the reader can stop.

        A batch that waits to be started starts at once, even if `at_once` others are in progress.
        """
        if not self._stopping.done():
            self._stopping.set_result(None)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - unfinished entries stay pending
        """Wait at most `timeout` seconds for the batches in progress; those that have not ended go on."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    async def cancel(self) -> None:
        """Cancel the batches in progress, and return when they have ended; their entries stay pending."""
        await cancel(*self._tasks)

    async def _to_the_end(self, builder: BatchBuilder, after_turns: int) -> None:
        for _ in range(after_turns):
            await asyncio.sleep(0)
        began = time.monotonic()
        try:
            with Step("batch", self._stream):
                await self._process(builder)
        except Exception:  # noqa: BLE001 - logged; its entries stay pending and are claimed later
            logs.logger().exception("batch failed")
        else:
            self._rate = len(builder) / max(time.monotonic() - began, _CLOCK_TICK)
            self._columns = builder.column_count


def _is_large(builder: BatchBuilder) -> bool:
    return len(builder) >= LARGE_BATCH_ENTRIES or builder.size >= LARGE_BYTES or builder.has_large
