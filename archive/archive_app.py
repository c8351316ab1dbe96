"""Compose an archiver: the output streams, the consumer group, FastStream and the database.

It sets no signal handlers and no logging, so it can run in the process of a test.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from archive.archive_figures import MeasuredArchive, samples_of
from archive.archive_repository import SchemaError
from archive.archive_url import database_of, prepare_tables
from archive.archiver import Archiver
from archive.database_thread import DatabaseThread
from archive.output_group import OutputGroup, OutputStream
from archive.retaining import Retaining
from service import logs
from service.bus.broker import make_broker, readers_of
from service.bus.subscription import UncopiedStream, subscribe_to
from service.cancelling import cancel, done_within
from service.periodic import PeriodicTask
from service.ports.storage import StorageUnavailableError
from service.retrying import RetryUntilAvailable
from service.settings import SettingsError
from service.storage.client.connection import client_of, reading_client_of
from service.storage.client.reading_client import Input
from service.storage.redis_outbox import backlog_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from archive.archive_settings import ArchiveSettings
    from service.observability.metrics.samples import Samples
    from service.ports.deployment_figures import BacklogFigures
    from service.ports.storage import RawEntry

_LINGER = 0.02
"""Seconds for which a small batch waits for further entries, since each commit waits for a disk."""

_SLOW_SECONDS = 30.0
"""Seconds after which a call of the database counts as unanswered."""

_MEASURE_SECONDS = 10.0
"""Seconds between two looks at what is not archived yet."""


def outputs_of(settings: ArchiveSettings) -> list[OutputStream]:
    """Return the output streams of all partitions."""
    return [
        OutputStream(name, family, settings.prefix)
        for names in settings.names.all
        for name, family in (
            (names.assembled, "text"),
            (names.alerts, "alert"),
            (names.deliveries, "delivery"),
        )
    ]


class ArchiveApp:
    """An archiver.

    Args:
        settings: its settings.

    Raises:
        SettingsError: the program has no library for the database.
    """

    def __init__(self, settings: ArchiveSettings) -> None:
        self._settings = settings
        self._database = database_of(settings)
        self._thread = DatabaseThread()
        self._retrying = RetryUntilAvailable()
        self._archive = MeasuredArchive(self._database)
        self.archiver = Archiver(self._archive, self._thread, self._retrying)
        self._client = client_of(settings.address)
        self._groups = {
            stream: OutputGroup(self._client, stream, settings.archive_group, settings.consumer)
            for stream in outputs_of(settings)
        }
        inputs = {stream.name: Input(group, self._retrying) for stream, group in self._groups.items()}
        self._reading = reading_client_of(settings.address, inputs, _LINGER)
        self._broker = make_broker(settings, self._reading)
        self._retaining = Retaining(
            database_of(settings), DatabaseThread(), settings.retentions, settings.archive_retention_interval
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._measuring = PeriodicTask("archive figures", _MEASURE_SECONDS, self._measure, "outputs")
        self._backlog: BacklogFigures | None = None
        """The entries that were not archived at the last look; None if nobody looks, or Redis is away."""
        self._looked_at = 0.0
        self._is_stopping = False
        self._started = False

    @property
    def started(self) -> bool:
        """True once it reads."""
        return self._started

    def not_ready(self) -> list[str]:
        """Return a reason for each thing that keeps it from archiving."""
        if self._is_stopping or not self._started:
            return ["stopping" if self._is_stopping else "starting"]
        of_redis = [f"redis: {self._retrying.waits_for}"] if self._retrying.waits_for else []
        return self._database_reasons() + of_redis

    async def status(self) -> dict[str, Any]:
        """Return its state as JSON values, for people."""
        backlog = self._backlog
        return {
            "entries": dict(self.archiver.counts),
            "database_away": self.archiver.away,
            "waiting_entries": backlog and backlog.alerts,
            "oldest_seconds": backlog and round(backlog.oldest_seconds(self._looked_at), 1),
        }

    def samples(self) -> Samples:
        """Return the values of its metrics."""
        return samples_of(
            self.archiver.counts,
            self._archive,
            self._backlog,
            self._looked_at,
            self._retrying,
            database_up=not self._database_reasons(),
        )

    def _database_reasons(self) -> list[str]:
        if self.archiver.away is not None:
            return ["the archive's database is away"]
        if (seconds := self._thread.busy_seconds) > _SLOW_SECONDS:
            return [f"the archive's database has not answered for {seconds:.0f} s"]
        return []

    async def start(self) -> None:
        """Wait for database and Redis, and begin to read.

        Raises:
            SettingsError: the tables are not those of this version.
        """
        for group in self._groups.values():
            await self._retrying.call(group.ensure)  # from now on, the outputs are kept for it
        if self._settings.http is not None:
            self._measuring.start()
        try:
            await self.archiver.until_available(partial(prepare_tables, self._settings, self._database))
        except SchemaError as error:
            raise SettingsError(str(error)) from None
        for stream, group in self._groups.items():
            subscription = UncopiedStream(
                stream.name,
                group=self._settings.archive_group,
                consumer=self._settings.consumer,
                batch=True,
                max_records=self._settings.archive_batch,
                polling_interval=self._settings.block_ms,
            )
            subscribe_to(self._broker, subscription, self._taking(stream, group))
        await self._broker.start()
        self._tasks.append(asyncio.create_task(self._claim_regularly(), name="claim"))
        if self._settings.retentions:
            self._tasks.append(asyncio.create_task(self._retaining.run(), name="retain"))
        self._started = True
        logs.logger().info("archive started", streams=len(self._groups), consumer=self._settings.consumer)

    async def stop(self) -> None:
        """Read no more, finish the batches under way if that is possible in time, and close everything.

        Batches that are not finished stay pending, and another archiver claims them.
        """
        self._is_stopping = True
        await self._measuring.stop()
        await cancel(*self._tasks)
        if self._started:
            clock = asyncio.get_running_loop().time
            until = clock() + self._settings.shutdown_timeout
            await self._reading.reads.drain(self._settings.shutdown_timeout)
            await self.archiver.finish(max(0.0, until - clock()))
        readers = readers_of(self._broker)
        await cancel(*readers)
        await self._broker.stop()
        await self._reading.aclose()
        await self._client.aclose()
        await done_within(1, self._thread.call(self._database.close))  # unless it hangs
        self._thread.stop()
        await self._retaining.close()
        logs.logger().info("archive stopped", **self.archiver.counts)

    async def _measure(self) -> None:
        """Look at what is not archived yet."""
        streams = [stream.name for stream in self._groups]
        self._looked_at = time.time()
        try:
            self._backlog = await backlog_of(self._client, streams, self._settings.archive_group)
        except BaseException:
            self._backlog = None
            raise

    def _taking(
        self, stream: OutputStream, group: OutputGroup
    ) -> Callable[[list[RawEntry]], Awaitable[None]]:
        async def take(entries: list[RawEntry]) -> None:
            await self.archiver.take_while_reading(stream, group, entries)

        return take

    async def _claim_regularly(self) -> None:
        """Archive what dead archivers have left."""
        while True:
            await asyncio.sleep(self._settings.claim_time / 2)
            if self.archiver.away is not None:
                continue  # the entries of this process would be claimed, and wait twice
            for stream, group in self._groups.items():
                try:
                    await self._claim(stream, group)
                except StorageUnavailableError as error:
                    logs.logger().debug("claim skipped, redis unavailable", error=str(error))
                except Exception:  # noqa: BLE001 - the next round does what this one has left
                    logs.logger().exception("claim failed", stream=stream.name)

    async def _claim(self, stream: OutputStream, group: OutputGroup) -> None:
        cursor = "0-0"
        while True:
            page = await group.claim(round(self._settings.claim_time * 1000), cursor)
            if page.lost:
                self.archiver.counts["lost"] += page.lost
                logs.logger().error(
                    "entries trimmed before they were archived", stream=stream.name, entries=page.lost
                )
            if page.entries:
                await self.archiver.take(stream, group, page.entries)
            cursor = page.cursor
            if cursor == "0-0":
                return
