"""Take over pending entries of dead and stuck workers, so that no entry can harm its neighbours.

1. Ownership and delivery are separate steps. Entries are claimed many at a time, which counts no delivery. A
   delivery is counted when an entry is given to the handlers.
2. Entries that were delivered once are processed as a batch: their worker was probably just stopped.
3. Entries that were delivered more often are processed one by one. An entry that kills its worker is then
   alone, and brings no other entry closer to the limit.
4. An entry that was delivered `max_deliveries` times becomes a dead letter, undecoded.
5. An entry that is too large to be read becomes a dead letter too. Its beginning is read without a delivery.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from service import logs
from service.pipeline.decode import Unreadable
from service.ports.instruments import OFF
from service.ports.storage import Beginning, StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from service.pipeline.batch_builder import BatchBuilder
    from service.pipeline.processing import BatchProcessor
    from service.ports.instruments import Instruments
    from service.ports.storage import Group, RawEntry
    from service.retrying import RetryUntilAvailable
    from service.settings import Settings

_BEGINNING = "0-0"
_GONE_AFTER = 20
"""Number of claim times without activity after which a consumer without pending entries is removed."""


class Reclaimer:
    """Takes over entries of dead or stuck workers, renews entries in progress, and removes idle consumers."""

    def __init__(
        self,
        group: Group,
        processor: BatchProcessor,
        settings: Settings,
        retrying: RetryUntilAvailable,
        instruments: Instruments = OFF,
    ) -> None:
        self._instruments = instruments
        self._group = group
        self._processor = processor
        self._settings = settings
        self._retrying = retrying
        self._cursor = _BEGINNING

    async def adopt(self) -> None:
        """Take over and process the pending entries that ended processes on this host have left.

        Call it before this worker reads: pending entries of its own consumer name are taken for those of an
        earlier run. Entries of another name are taken over if `is_gone` is true for the name. Idle times do
        not matter. Return when all these entries are processed; wait while Redis is unavailable.
        """
        own = self._settings.consumer
        for name in await self._retrying.call(self._group.consumers):
            if name == own or is_gone(name, own):
                while deliveries := await self._retrying.call(self._group.adopt, name):
                    await self._process(deliveries, consumer=name)

    async def reclaim(self) -> None:
        """Claim and process entries of all consumers that have been idle for the claim time or longer.

        Claim page by page, and return when the last page is processed. Entries that this worker has in
        progress are not processed again. Entries that were trimmed while pending are reported as lost.

        Raises:
            StorageUnavailableError: a claim failed. The next call goes on at the same page.
        """
        idle_ms = round(self._settings.claim_time * 1000)
        while True:
            claim = await self._group.claim(idle_ms, self._cursor)
            self._cursor = claim.cursor
            if claim.lost:
                self._instruments.lost(len(claim.lost))
                logs.logger().error(
                    "entries trimmed before processing",
                    entries=len(claim.lost),
                    first_entry=claim.lost[0],
                    last_entry=claim.lost[-1],
                )
            # A worker that has waited for Redis may claim entries that it is still processing.
            in_progress = self._processor.in_progress
            await self._process(
                {entry: n for entry, n in claim.deliveries.items() if entry.encode() not in in_progress}
            )
            if claim.cursor == _BEGINNING:
                return

    async def renew(self) -> None:
        """Reset the idle time of the entries in progress, so that no other worker claims them."""
        if in_progress := self._processor.in_progress:
            await self._group.renew(in_progress)

    async def remove_idle_consumers(self) -> None:
        """Remove other consumers that are idle for `_GONE_AFTER` claim times and have no pending entries."""
        idle_ms = round(self._settings.claim_time * _GONE_AFTER * 1000)
        removed = await self._group.remove_idle_consumers(idle_ms)
        if removed:
            logs.logger().info("idle consumers removed", consumers=removed)

    async def _process(self, deliveries: Mapping[str, int], consumer: str | None = None) -> None:
        if deliveries:
            # All are held until the last is done: otherwise other workers would claim the later ones.
            with self._processor.marked_in_progress([entry.encode() for entry in deliveries]):
                await self._process_held(deliveries, consumer)

    async def _process_held(self, deliveries: Mapping[str, int], consumer: str | None) -> None:
        self._instruments.claimed(len(deliveries))
        logs.logger().info("entries claimed", entries=len(deliveries), from_consumer=consumer)
        worn_out = [entry for entry, n in deliveries.items() if n >= self._settings.max_deliveries]
        once = [entry for entry, n in deliveries.items() if n == 1]
        rest = [entry for entry, n in deliveries.items() if 1 < n < self._settings.max_deliveries]
        for entry in worn_out:
            await self._give_up(entry, deliveries[entry])
        for entries in (once, *([entry] for entry in rest)):
            if entries:
                number = deliveries[entries[0]] + 1  # equal for all entries of a batch
                again = {entry.encode(): n + 1 for entry, n in deliveries.items()}
                async for builder in self._deliver(entries, number):
                    await self._processor.process(builder, again)

    async def _deliver(self, entries: Sequence[str], number: int) -> AsyncIterator[BatchBuilder]:
        """Deliver entries, with `number` as their delivery count, and yield builders with them, normally one.

        An entry may be so large that its reply never comes in time. So after a timeout, read each entry by
        itself with more time, and yield a builder for each that still exists: with the delivered entry if its
        size is allowed, else with its beginning, undelivered.

        Each builder is made before its entries are read, so that it has the replication id from before a
        failover.
        """
        builder = self._processor.builder()
        delivered = await self._retrying.call(self._deliver_in_time, entries, number)
        if delivered is not None:
            builder.extend(delivered)
            yield builder
            return
        for entry_id in entries:
            builder = self._processor.builder()
            found = await self._retrying.call(self._group.look_at, entry_id, self._processor.max_entry_bytes)
            if isinstance(found, Beginning):
                builder.extend([found])
            elif found is not None:
                builder.extend(await self._retrying.call(self._group.deliver, [entry_id], number))
            if builder:
                yield builder

    async def _deliver_in_time(self, entries: Sequence[str], number: int) -> Sequence[RawEntry] | None:
        """Deliver entries, with `number` as their delivery count, and return those that still exist.

        Return None if the server does not reply in time.

        Raises:
            StorageUnavailableError: the server is unavailable for another reason.
        """
        try:
            return await self._group.deliver(entries, number)
        except StorageUnavailableError as error:
            if error.state != "TimeoutError":
                raise
            return None

    async def _give_up(self, entry_id: str, deliveries: int) -> None:
        replication_id = self._processor.replication_id
        # Its size may have killed its workers, so only the beginning is read.
        entry = await self._retrying.call(self._group.look_at, entry_id, self._processor.max_entry_bytes)
        if entry is not None:
            limit = self._settings.max_deliveries
            why = Unreadable(
                "max_deliveries",
                f"delivered {limit} times, and each time the worker died, hung or ran out of memory; "
                "see the worker's log",
            )
            await self._processor.dead_letter(entry, deliveries, why, replication_id)


_NAME = re.compile(r"^(?P<host>.+)-(?P<pid>[0-9]{1,19})-[0-9a-f]{6}$")


def is_gone(name: str, own: str) -> bool:
    """Return whether the consumer `name` was a process of this host that has ended.

    Names have the host, the process id and a random part, as the default of `Settings.consumer` makes them.
    The result is False for a name of another form or host, for `own` (the name of this process), and if a
    process with the same id runs, unless that is this process.
    """
    theirs, ours = _NAME.match(name), _NAME.match(own)
    if theirs is None or ours is None or theirs["host"] != ours["host"] or name == own:
        return False
    return theirs["pid"] == ours["pid"] or not _runs(int(theirs["pid"]))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        return True
    return True
