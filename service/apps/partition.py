"""Serve one partition: its consumer group, its batches and its periodic tasks.

Partitions are independent. Each has its own group and low-water mark, all guarantees hold per partition, and
each starts as soon as its own server is available.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from service import logs
from service.bus.envelope import open_entry
from service.cancelling import done_within
from service.keys import Keys
from service.periodic import PeriodicTask
from service.pipeline.processing import BatchProcessor
from service.pipeline.reclaiming import Reclaimer
from service.pipeline.scheduler import BatchScheduler
from service.ports.storage import StorageUnavailableError
from service.storage.group import ConsumerGroup
from service.storage.kind_retention import KindRetention
from service.storage.state_format import StateFormat
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import NoReturn

    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames
    from handlers.core.routing import RoutingTable
    from service.pipeline.batch_builder import BatchBuilder
    from service.retrying import RetryUntilAvailable
    from service.settings import Settings


_BATCHES_AT_ONCE = 2
"""Batches in progress: one at the server, one in Python. Only one if each must be on disk
or on replicas before the next one is read."""

_LEAVES_WITHIN = 2.0
"""Maximum seconds for leaving the group; a server that hangs is not waited for longer."""


class Partition:
    """A partition as served by this worker."""

    def __init__(
        self,
        names: StreamNames,
        client: Redis,
        table: RoutingTable,
        settings: Settings,
        retrying: RetryUntilAvailable,
    ) -> None:
        keys = Keys(names)
        self.names = names
        self.retrying = retrying
        self.group = ConsumerGroup(client, keys, settings.consumer)
        self._format = StateFormat(client, keys.format)
        self._claim_time = settings.claim_time
        self._in_group = False
        self._retention_ms = round(settings.retention * 1000)
        self._kind_retention = KindRetention(
            client, keys, settings.kind_retentions, max(settings.retention, settings.item_ttl)
        )
        self._storage = RedisStorage(client, keys, settings)
        self._processor = BatchProcessor(self._storage, table, names, settings, retrying, open_entry)
        # With either setting, a batch must be on disk or on replicas before the next one is read.
        one_by_one = settings.wait_aof or settings.wait_replicas > 0
        self._scheduler = BatchScheduler(self._processor.process, 1 if one_by_one else _BATCHES_AT_ONCE)
        self._reclaimer = Reclaimer(self.group, self._processor, settings, retrying)
        self._periodic_tasks = [
            PeriodicTask(name, interval, step, names.deltas)
            for name, interval, step in (
                ("sweep", settings.sweep_interval, self._processor.sweep),
                ("reclaim", settings.claim_time / 3, self._reclaimer.reclaim),
                ("renew", settings.claim_time / 3, self._reclaimer.renew),
                ("remove_idle_consumers", settings.claim_time * 4, self._reclaimer.remove_idle_consumers),
                ("trim", settings.trim_interval, self._trim),
            )
        ]

    async def begin(
        self, start_reading: Callable[[], Awaitable[None]], rehearse: Callable[[StreamNames], Awaitable[None]]
    ) -> None:
        """Start serving as soon as the server is available.

        Args:
            start_reading: starts reading batches.
            rehearse: tries the worker's commands on scratch keys, stored where the partition's keys are.

        Raises:
            StateFormatError: this worker cannot read the partition's state.
        """
        with logs.bound(stream=self.names.deltas):
            await self.retrying.call(self._format.write_note)
            await self.retrying.call(self.group.ensure)
            self._in_group = True
            await self.retrying.call(rehearse, self.names)
            await self.retrying.call(self._storage.load_scripts)
            await self._reclaimer.adopt()  # before the first read: all it holds now is from a former run
            await start_reading()
        for each in self._periodic_tasks:
            each.start()

    async def watch_format(self) -> NoReturn:
        """Check once per claim time that this worker can still read the partition's state; never return.

        Raises:
            StateFormatError: this worker cannot read it.
        """
        await self._format.watch(self._claim_time)

    def builder(self) -> BatchBuilder:
        """Return a builder for the next batch."""
        return self._processor.builder()

    async def process(self, builder: BatchBuilder) -> None:
        """Schedule a batch that was read; return when the next one may be read."""
        await self._scheduler.schedule(builder)

    def entries_at_most(self) -> int | None:
        """Return the maximum number of entries of the next batch; None if unlimited."""
        return self._scheduler.entries_at_most

    async def end(self) -> None:
        """Stop the periodic tasks, and let `process` return without waiting for a batch."""
        self._scheduler.stop_waiting()
        for each in self._periodic_tasks:
            await each.stop()

    async def leave(self, timeout: float) -> None:  # noqa: ASYNC109 - other workers take over the rest
        """Wait up to `timeout` seconds for the batches in progress, cancel the rest, and leave the group.

        Entries of cancelled batches stay pending. An unavailable Redis is not waited for.
        """
        await self._scheduler.drain(timeout)
        await self._scheduler.cancel()
        if self._in_group:
            with contextlib.suppress(StorageUnavailableError):
                await done_within(_LEAVES_WITHIN, self.group.leave())

    async def _trim(self) -> None:
        await self.group.trim(self._retention_ms)
        await self._kind_retention.remove_aged()
