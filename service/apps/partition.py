"""One partition, as a worker serves it: its group, its batches, and the rounds beside them.

Partitions know nothing of each other. Each has its own group and low-water mark, and all that is promised
is promised for each. Each begins when its own server is there.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from service import logs
from service.bus.envelope import open_entry
from service.cancelling import done_within
from service.keys import Keys
from service.pipeline.ahead import Ahead
from service.pipeline.reclaiming import Reclaimer
from service.pipeline.worker import Worker
from service.ports.storage import StorageUnavailableError
from service.rounds import Round
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
    from service.patience import Patience
    from service.pipeline.gathering import Gathering
    from service.settings import Settings


_BATCHES_AT_ONCE = 2
"""One for the server, and one for Python; one where each has to be on disk, or on replicas, first."""

_LEAVES_WITHIN = 2.0
"""Seconds: a server that hangs is left without a word."""


class Partition:
    """What serves one partition."""

    def __init__(
        self,
        names: StreamNames,
        client: Redis,
        table: RoutingTable,
        settings: Settings,
        patience: Patience,
    ) -> None:
        keys = Keys(names)
        self.names = names
        self.patience = patience
        self.group = ConsumerGroup(client, keys, settings.consumer)
        self._format = StateFormat(client, keys.format)
        self._claim_time = settings.claim_time
        self._in_group = False
        self._retention_ms = round(settings.retention * 1000)
        self._kind_retention = KindRetention(
            client, keys, settings.kind_retentions, max(settings.retention, settings.item_ttl)
        )
        self._storage = RedisStorage(client, keys, settings)
        self._worker = Worker(self._storage, table, names, settings, patience, open_entry)
        # With either of these it has to be on disk, or on replicas, before the next batch is read.
        one_by_one = settings.wait_aof or settings.wait_replicas > 0
        self._ahead = Ahead(self._worker.take, 1 if one_by_one else _BATCHES_AT_ONCE)
        self._reclaimer = Reclaimer(self.group, self._worker, settings, patience)
        self._rounds = [
            Round(name, interval, step, names.deltas)
            for name, interval, step in (
                ("sweep", settings.sweep_interval, self._worker.sweep),
                ("reclaim", settings.claim_time / 3, self._reclaimer.reclaim),
                ("keep", settings.claim_time / 3, self._reclaimer.keep),
                ("retire", settings.claim_time * 4, self._reclaimer.retire),
                ("trim", settings.trim_interval, self._trim),
            )
        ]

    async def begin(
        self, read: Callable[[], Awaitable[None]], rehearse: Callable[[StreamNames], Awaitable[None]]
    ) -> None:
        """Begin, as soon as the server is there.

        Args:
            read: has batches come.
            rehearse: tries what a worker does on keys that lie where the partition's do.

        Raises:
            StateFormatError: this worker cannot read the state of this partition.
        """
        with logs.bound(stream=self.names.deltas):
            await self.patience.until_done(self._format.claim)
            await self.patience.until_done(self.group.ensure)
            self._in_group = True
            await self.patience.until_done(rehearse, self.names)
            await self.patience.until_done(self._storage.load_scripts)
            await self._reclaimer.inherit()  # before it reads: what it holds now is its former self's
            await read()
        for each in self._rounds:
            each.start()

    async def watch_format(self) -> NoReturn:
        """Check once a claim time that this worker can still read the state of this partition.

        Raises:
            StateFormatError: it cannot.
        """
        await self._format.watch(self._claim_time)

    def gathering(self) -> Gathering:
        """Where entries are put as they are read."""
        return self._worker.gathering()

    async def take(self, gathering: Gathering) -> None:
        """Take a batch that was read; when this returns, the next one is."""
        await self._ahead.take(gathering)

    def entries_at_most(self) -> int | None:
        """How many entries the next batch should have at most; None: no limit."""
        return self._ahead.entries_at_most

    async def end(self) -> None:
        """End the rounds, and have whoever reads wait for no batch any more."""
        self._ahead.wait_no_more()
        for each in self._rounds:
            await each.stop()

    async def leave(self, timeout: float) -> None:  # noqa: ASYNC109 - what is left then is left to others
        """Finish what is in hand, and let go of what is still held, unless Redis is away."""
        await self._ahead.drain(timeout)
        await self._ahead.let_go()
        if self._in_group:
            with contextlib.suppress(StorageUnavailableError):
                await done_within(_LEAVES_WITHIN, self.group.leave())

    async def _trim(self) -> None:
        await self.group.trim(self._retention_ms)
        await self._kind_retention.remove_aged()
