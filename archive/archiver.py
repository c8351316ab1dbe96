"""Archive batches of entries: parse, insert, and acknowledge after the commit.

While the database works on a batch, the next one is read and parsed. A batch waits while the database or
Redis is away. Until it is acknowledged, its entries are pending, so another archiver claims them if this one
dies.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from archive.archive_repository import ArchiveRefusedError, ArchiveUnavailableError, Inserted
from archive.record import EntryPlace, NotAMessageError, Record, UnreadableEntry, record_of, unreadable
from service import logs
from service.cancelling import cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from archive.archive_repository import ArchiveRepository
    from archive.database_thread import DatabaseThread
    from archive.output_group import OutputGroup, OutputStream
    from service.ports.storage import RawEntry
    from service.retrying import RetryUntilAvailable

    OutputEntry = RawEntry | tuple[bytes, list[bytes]]
    """An entry that was read or claimed: its id, and its names and values, alternating."""

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts while the database is away."""


class Archiver:
    """Writes the batches of all streams.

    Args:
        repository: the archive.
        thread: thread in which it is called.
        retrying: retries calls of Redis.
    """

    def __init__(
        self, repository: ArchiveRepository, thread: DatabaseThread, retrying: RetryUntilAvailable
    ) -> None:
        self._repository = repository
        self._thread = thread
        self._retrying = retrying
        self.counts: Counter[str] = Counter()
        """Entries by what became of them."""
        self.away: str | None = None
        """The reason why the database is away; None if it is not."""
        self._latest: dict[OutputStream, asyncio.Task[None]] = {}
        self._begun = set[asyncio.Task[None]]()

    async def take(
        self,
        stream: OutputStream,
        group: OutputGroup,
        entries: Sequence[OutputEntry],
    ) -> None:
        """Archive entries of a stream, and acknowledge them.

        If it is cancelled, they stay pending, whether or not they were committed.
        """
        await self._write(stream, group, entries, *_parsed(stream, entries))

    async def take_while_reading(
        self,
        stream: OutputStream,
        group: OutputGroup,
        entries: Sequence[OutputEntry],
    ) -> None:
        """Begin to archive entries, and return when those of the previous call are archived.

        So the next batch of the stream is read and parsed while the database works.
        """
        writing = self._write(stream, group, entries, *_parsed(stream, entries))
        previous = self._latest.get(stream)
        self._latest[stream] = task = asyncio.create_task(writing, name=f"archive {stream.name}")
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        if previous is not None:
            await previous

    async def finish(self, seconds: float) -> None:
        """Wait for what `take_while_reading` has begun; after `seconds`, cancel it."""
        if begun := list(self._begun):
            await asyncio.wait(begun, timeout=seconds)
            await cancel(*begun)
            await asyncio.gather(*begun, return_exceptions=True)

    async def _write(
        self,
        stream: OutputStream,
        group: OutputGroup,
        entries: Sequence[OutputEntry],
        records: Sequence[tuple[EntryPlace, Record]],
        bad: Sequence[UnreadableEntry],
    ) -> None:
        """Insert the records of entries, then acknowledge the entries."""
        inserted = await self._insert(records, bad)
        await self._retrying.call(group.acknowledge, [entry_id for entry_id, _ in entries])
        self.counts.update(inserted._asdict())
        for name in ("conflicts", "unreadable"):
            if count := getattr(inserted, name):
                logs.logger().warning(
                    "entries archived beside the records", stream=stream.name, reason=name, entries=count
                )

    async def until_available(self, step: Callable[[], T]) -> T:
        """Run a step in the database's thread, again and again while the database is away.

        Raises:
            ArchiveRefusedError: the database refuses a record.
            SchemaError: the tables are not those of this version.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                result = await self._thread.call(step)
            except ArchiveUnavailableError as error:
                if self.away != str(error):
                    logs.logger().warning("archive unavailable, retrying", error=str(error))
                self.away = str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if self.away is not None:
                    logs.logger().info("archive available again")
                    self.away = None
                return result

    async def _insert(
        self, records: Sequence[tuple[EntryPlace, Record]], bad: Sequence[UnreadableEntry]
    ) -> Inserted:
        """Insert a batch. If the database refuses it, halve it, until the refused records are alone."""
        try:
            return await self.until_available(
                partial(self._repository.insert, [record for _, record in records], bad)
            )
        except ArchiveRefusedError as error:
            if not records:
                raise
            if len(records) == 1:
                ((place, record),) = records
                fields = [b"response_id", (record.response_id or "").encode(), b"__data__", record.body]
                refused = unreadable(place, fields, f"the database refuses it: {error}")
                return await self._insert([], [*bad, refused])
        half = len(records) // 2
        first = await self._insert(records[:half], bad)
        second = await self._insert(records[half:], [])
        return Inserted(*(sum(pair) for pair in zip(first, second, strict=True)))


def _parsed(
    stream: OutputStream, entries: Sequence[OutputEntry]
) -> tuple[list[tuple[EntryPlace, Record]], list[UnreadableEntry]]:
    """Return the records of entries, and what is kept of those that are not messages."""
    records: list[tuple[EntryPlace, Record]] = []
    bad: list[UnreadableEntry] = []
    now = datetime.now(UTC)
    for entry_id, fields in entries:
        place = EntryPlace(stream.name, entry_id.decode())
        try:
            records.append((place, record_of(stream.family, stream.prefix, fields, now)))
        except NotAMessageError as error:
            bad.append(unreadable(place, fields, str(error)))
    return records, bad
