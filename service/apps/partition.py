"""Serve one partition: its consumer group, its batches and its periodic tasks.

Partitions are independent. Each has its own group and low-water mark, all guarantees hold per partition, and
each starts as soon as its own server is available.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from service import logs
from service.apps.kept_outputs import KeptOutputs
from service.bus.envelope import open_entry
from service.cancelling import done_within, result_within
from service.keys import Keys
from service.periodic import BackgroundStep
from service.pipeline.processing import BatchProcessor
from service.pipeline.reclaiming import Reclaimer
from service.pipeline.scheduler import BatchScheduler
from service.ports.storage import StorageUnavailableError
from service.ports.telemetry import SILENT
from service.storage.group import ConsumerGroup
from service.storage.kind_retention import KindRetention
from service.storage.output_budget import OutputBudget
from service.storage.state_format import StateFormat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames
    from handlers.core.routing import RoutingTable
    from service.pipeline.batch_builder import BatchBuilder
    from service.ports.telemetry import Telemetry
    from service.retrying import RetryUntilAvailable
    from service.settings import Settings
    from service.storage.output_budget import OverBudget
    from service.storage.overview import GroupsSeen
    from service.storage.store import RedisStorage


_BATCHES_AT_ONCE = 3
"""Batches in progress: one in Python, two whose calls wait for each other at the server. Only one if each
must be on disk or on replicas before the next one is read."""

_LEAVES_WITHIN = 2.0
"""Maximum seconds for leaving the group; a server that hangs is not waited for longer."""

_BACKLOG_WITHIN = 2.0
"""Maximum seconds for the backlog of the group, which a person waits for."""

_LEAVE_PAUSES = (0.05, 0.2, 0.0)
"""Seconds after each failed attempt to leave the group."""


class Partition:
    """A partition as served by this worker.

    `service/apps/rounds.py` begins the periodic steps.
    """

    def __init__(
        self,
        names: StreamNames,
        client: Redis,
        table: RoutingTable,
        settings: Settings,
        retrying: RetryUntilAvailable,
        storage: RedisStorage,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self.keys = keys = Keys(names)
        self.names = names
        self.retrying = retrying
        self.group = ConsumerGroup(client, keys, settings.consumer)
        self._format = StateFormat(client, keys.format)
        self._in_group = False
        self._served = False
        self._retention_ms = round(settings.retention * 1000)
        self._kind_retention = KindRetention(
            client, keys, settings.kind_retentions, max(settings.retention, settings.item_ttl)
        )
        budget = settings.retention_bytes
        # Responses spread evenly over the partitions, so each has the same share.
        share = None if budget is None else budget // len(settings.names.all)
        self._budget = share and OutputBudget(client, names, share)
        self._kept = (
            KeptOutputs(self.group, settings.retention_group, self._retention_ms, share)
            if settings.retention_group
            else None
        )
        self._over_budget: OverBudget | None = None
        """The state of the outputs that was logged last."""
        self._storage = storage
        self._processor = BatchProcessor(
            self._storage, table, names, settings, retrying, open_entry, telemetry
        )
        # With either setting, a batch must be on disk or on replicas before the next one is read.
        one_by_one = settings.wait_aof or settings.wait_replicas > 0
        self._scheduler = BatchScheduler(
            self._processor.process, 1 if one_by_one else _BATCHES_AT_ONCE, names.deltas
        )
        self._reclaimer = Reclaimer(self.group, self._processor, settings, retrying, telemetry.instruments)
        self._seen: GroupsSeen | None = None
        """The groups of the input before the next trim."""
        self._trimmed: GroupsSeen | None = None
        """The groups of the input before the last trim."""
        self._steps = [
            BackgroundStep(name, step, names.deltas)
            for name, step in (
                ("sweep", self._processor.sweep),
                ("reclaim", self._reclaimer.reclaim),
                ("renew", self._reclaimer.renew),
                ("remove_idle_consumers", self._reclaimer.remove_idle_consumers),
                ("trim", self._trim_input),
                ("trim_outputs", self._trim_outputs),
            )
        ]
        self.sweep, self._reclaim, self._renew, self.remove_idle_consumers, self._trim, self.trim_outputs = (
            self._steps
        )

    async def begin(
        self, start_reading: Callable[[], Awaitable[None]], rehearse: Callable[[StreamNames], Awaitable[None]]
    ) -> None:
        """Start serving as soon as the server is available.

        Args:
            start_reading: starts reading batches.
            rehearse: loads the worker's scripts on the partition's server, and tries them on scratch keys.

        Raises:
            StateFormatError: this worker cannot read the partition's state.
        """
        with logs.bound(stream=self.names.deltas):
            await self.retrying.call(self._format.write_note)
            await self.retrying.call(self.group.ensure)
            self._in_group = True
            await self.retrying.call(rehearse, self.names)
            await self._reclaimer.adopt()  # before the first read: all it holds now is from a former run
            await start_reading()
        self._served = True
        for each in self._steps:
            each.begin()

    def not_ready(self) -> str | None:
        """Return the reason why it is not served now; None if it is served."""
        stream = self.names.deltas
        if states := self.retrying.needs_operator:
            return (
                f"{stream}: Redis refuses commands ({', '.join(states)}), waits for an operator; see its log"
            )
        if self.retrying.waits_for is not None:
            return f"{stream}: waits for Redis ({self.retrying.waits_for})"
        if not self._served:
            step = "its group is missing" if not self._in_group else "its scripts are not tried"
            return f"{stream}: not served yet, {step}"
        return None

    async def status(self) -> dict[str, Any]:
        """Return its state for people; lag and pending are None if Redis does not tell in time."""
        lag = pending = None
        if self._served and self.retrying.waits_for is None:
            lag, pending = await self._backlog()
        return {
            "stream": self.names.deltas,
            "served": self._served,
            "waits_for_redis": self.retrying.waits_for,
            "lag": lag,
            "pending": pending,
            "entries_in_hand": len(self._processor.in_progress),
        }

    async def _backlog(self) -> tuple[int | None, int | None]:
        found = None
        with contextlib.suppress(StorageUnavailableError):
            found = await result_within(_BACKLOG_WITHIN, self.group.backlog())
        return found or (None, None)

    def reclaim(self, seen: GroupsSeen | None) -> None:
        """Begin to claim entries, unless none is pending in `seen`; None if that is unknown."""
        if seen is None or seen.pending:
            self._reclaim.begin()

    def renew(self) -> None:
        """Begin to renew the entries in progress, if there are any."""
        if self._processor.in_progress:
            self._renew.begin()

    def trim(self, seen: GroupsSeen | None) -> None:
        """Begin to trim the input, unless the groups are as before the last trim."""
        if seen is None or self._trimmed is None or seen.positions != self._trimmed.positions:
            self._seen = seen
            self._trim.begin()

    def builder(self) -> BatchBuilder:
        """Return a builder for the next batch."""
        return self._processor.builder()

    def is_urgent(self, builder: BatchBuilder) -> bool:
        """Return whether a batch should be processed now instead of growing."""
        return self._processor.is_urgent(builder)

    async def process(self, builder: BatchBuilder) -> None:
        """Schedule a batch that was read; return when the next one may be read."""
        await self._scheduler.schedule(builder)

    def entries_at_most(self) -> int | None:
        """Return the maximum number of entries of the next batch; None if unlimited."""
        return self._scheduler.entries_at_most

    async def end(self) -> None:
        """Stop the periodic tasks, and let `process` return without waiting for a batch."""
        self._scheduler.stop_waiting()
        for each in self._steps:
            await each.stop()

    async def leave(self, timeout: float) -> None:  # noqa: ASYNC109 - other workers take over the rest
        """Wait up to `timeout` seconds for the batches in progress, cancel the rest, and leave the group.

        Entries of cancelled batches stay pending. An unavailable Redis is not waited for.
        """
        await self._scheduler.drain(timeout)
        await self._scheduler.cancel()
        if self._in_group:
            await done_within(_LEAVES_WITHIN, self._leave_group())

    async def _leave_group(self) -> None:
        """Leave the group; try again soon, as a cluster may only have to learn of a dead master."""
        for pause in _LEAVE_PAUSES:
            with contextlib.suppress(StorageUnavailableError):
                await self.group.leave()
                return
            await asyncio.sleep(pause)

    async def _trim_input(self) -> None:
        seen = self._seen
        await self.group.trim_input()
        self._trimmed = seen

    async def _trim_outputs(self) -> None:
        keep_for = ""
        if self._kept is None:
            await self.group.trim(self._retention_ms)
        else:
            keep_for = await self._kept.trim()
        await self._kind_retention.remove_aged(keep_for)
        if self._budget:
            self._log_budget(await self._budget.trim(), self._budget.bytes)

    def _log_budget(self, over: OverBudget | None, budget: int) -> None:
        """Log when the outputs begin to exceed their budget, when another group is the cause, and the end."""
        before, self._over_budget = self._over_budget, over
        if over is None:
            if before is not None:
                logs.logger().info("outputs within budget again", budget=budget)
        elif before is None or (before.stream, before.group) != (over.stream, over.group):
            logs.logger().warning(
                "outputs over budget",
                output=over.stream,
                group=over.group,
                bytes=over.stream_bytes,
                total_bytes=over.total_bytes,
                budget=budget,
            )
