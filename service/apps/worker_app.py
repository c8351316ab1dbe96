"""Compose settings, handlers, storage and FastStream into a worker; the only module that knows them all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handlers.core.routing import RoutingTable
from service import logs
from service.apps.partition import Partition
from service.apps.rehearsal import Rehearsals
from service.bus.broker import make_broker, readers_of
from service.bus.subscription import subscribe
from service.cancelling import cancel
from service.handler_packages import enabled_names, known_handlers
from service.periodic import PeriodicTask
from service.rates.spikes import SpikeWatch, thresholds_of
from service.retrying import RetryUntilAvailable
from service.settings import Settings, SettingsError
from service.storage.buckets import WINDOW_STEPS
from service.storage.client.connection import client_of, reading_client_of
from service.storage.client.reading_client import Input
from service.storage.client.server import ask, assess
from service.storage.redis_rates import RedisRates

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from redis.asyncio import Redis

_SPIKE_SECONDS = 30
"""Maximum seconds between two checks for spikes."""

_LAST_READ_WITHIN = 1.0
"""Seconds beyond the blocking time of a read, for its reply to arrive and be accepted at shutdown."""


def routing_table(settings: Settings) -> RoutingTable:
    """Return the routing table of the enabled handlers.

    Raises:
        SettingsError: the setting names an unknown handler.
    """
    known = known_handlers()
    names = enabled_names(settings.handlers, known)
    if any(name not in known for name in names):
        message = f"DELTALOOM_HANDLERS={settings.handlers!r} is not allowed: {', '.join(known)}"
        raise SettingsError(message)
    return RoutingTable(known[name] for name in names)


@dataclass(frozen=True)
class ExitReason:
    """The reason for the end of a worker: a request to stop, or the failure of one of its tasks."""

    error: BaseException | None = None
    """The failure; None after a request. A `StateFormatError` means that the worker cannot read the state."""


class WorkerApp:
    """A worker: start it, then let it serve until it is stopped or fails.

    Several workers can run in one process if their consumer names differ: a worker does not change the
    process's signal handlers, garbage collector or logging. Create and use it inside one event loop.

    Raises:
        SettingsError: the settings name an unknown handler.
        HandlerError: two handlers claim one type of events, or a kind of text has a name that is not allowed.
    """

    def __init__(self, settings: Settings) -> None:
        waits = settings.wait_aof or settings.wait_replicas > 0
        self._settings = settings
        self._table = routing_table(settings)
        self._client = client_of(settings.address, single_connection=waits)
        self._shared_retrier = RetryUntilAvailable()
        self._partitions = [
            Partition(names, self._client, self._table, settings, self._retrier())
            for names in settings.served
        ]
        self._reader = reading_client_of(settings.address, _inputs_of(self._partitions))
        self._broker = make_broker(settings, self._reader)
        self._rehearsals = Rehearsals(self._client, self._table, settings)
        self._spike_tasks = _spike_tasks(self._client, settings)
        self._tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        self._first_served: asyncio.Future[Any] = loop.create_future()
        self._exit: asyncio.Future[ExitReason] = loop.create_future()

    async def start(self) -> None:
        """Begin to serve each partition as soon as its own server is available.

        Return when the first partition is served, or when the worker is to end.
        """
        await self._broker.start()
        for partition in self._partitions:
            self._run(self._serve_partition(partition))
        await asyncio.wait({self._first_served, self._exit}, return_when=asyncio.FIRST_COMPLETED)
        if self._first_served.done():
            self._introduce()

    async def serve(self) -> ExitReason:
        """Serve until `stop` is called or a task fails; then shut down, and return the reason.

        Batches in progress have half of the shutdown timeout to finish.
        """
        try:
            reason = await self._exit
            await self._shut_down()
        finally:
            await self._client.aclose()
        if reason.error is None:
            logs.logger().info("worker stopped", consumer=self._settings.consumer)
        return reason

    def stop(self, reason: ExitReason = ExitReason()) -> None:
        """Let `start` and `serve` return soon. The first reason counts; further calls do nothing."""
        if not self._exit.done():
            self._exit.set_result(reason)

    async def _serve_partition(self, partition: Partition) -> None:
        start_reading = subscribe(self._broker, partition.names, self._settings, partition.process)
        await partition.begin(start_reading, self._rehearsals.rehearse)
        if not self._first_served.done():
            self._first_served.set_result(None)
        await partition.watch_format()

    def _introduce(self) -> None:
        """Log that the worker has started, and begin the tasks that need one available server only."""
        logs.logger().info(
            "worker started",
            consumer=self._settings.consumer,
            stream=_stream_pattern(self._settings),
            handlers=[handler.name for handler in self._table.handlers],
        )
        for each in self._spike_tasks:
            each.start()
        self._run(self._log_guarantees())

    async def _log_guarantees(self) -> None:
        """Log the server's guarantees, since deltaloom cannot be safer than its server."""
        for finding in assess(await self._retrier().call(ask, self._client, "REDIS_URL")):
            if finding.state == "ok":
                logs.logger().info("server", what=finding.what, says=finding.says)
            else:
                logs.logger().warning("server at risk", what=finding.what, says=finding.says)

    async def _shut_down(self) -> None:
        """Stop reading, finish the batches in progress, and leave the consumer groups."""
        await cancel(*self._tasks)
        await asyncio.gather(
            *(each.end() for each in self._partitions), *(each.stop() for each in self._spike_tasks)
        )
        await self._reader.reads.drain(self._settings.block_ms / 1000 + _LAST_READ_WITHIN)
        readers = readers_of(self._broker)
        await self._broker.stop()
        await cancel(*readers)
        await self._reader.aclose()
        timeout = self._settings.shutdown_timeout / 2
        await asyncio.gather(*(partition.leave(timeout) for partition in self._partitions))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run one of the worker's tasks until shutdown; its failure stops the worker."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._stop_if_failed)
        self._tasks.append(task)

    def _stop_if_failed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self.stop(ExitReason(error))

    def _retrier(self) -> RetryUntilAvailable:
        """Return the shared retrier; in a cluster, where servers fail independently, a new one."""
        return RetryUntilAvailable() if self._settings.address.mode == "cluster" else self._shared_retrier


def _spike_tasks(client: Redis, settings: Settings) -> list[PeriodicTask]:
    """Return the periodic task that checks for spikes, in a list; empty if refusals are not counted."""
    if not settings.spike_window:
        return []
    every = min(settings.spike_window / WINDOW_STEPS, _SPIKE_SECONDS)
    watch = SpikeWatch(RedisRates(client, settings), thresholds_of(settings), every)
    return [PeriodicTask("spikes", every, watch.look, settings.names.all[0].deltas)]


def _inputs_of(partitions: Iterable[Partition]) -> dict[str, Input]:
    """Return the input of each partition, by the name of its stream."""
    return {
        partition.names.deltas: Input(
            partition.group,
            partition.retrying,
            new_collector=partition.builder,
            entries_at_most=partition.entries_at_most,
        )
        for partition in partitions
    }


def _stream_pattern(settings: Settings) -> str:
    """Return the names of the worker's streams: one name, or a pattern such as `deltaloom:{0,1,2}:deltas`."""
    first, *others = (names.deltas for names in settings.served)
    if not others:
        return first
    numbers = ",".join(str(names.partition) for names in settings.served)
    return f"{settings.prefix}:{{{numbers}}}:deltas"
