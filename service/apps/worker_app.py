"""Compose settings, handlers, storage and FastStream into a worker; the only module that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from service import logs
from service.apps.drain_watch import DrainWatch
from service.apps.handler_table import routing_table
from service.apps.partition import Partition
from service.apps.rehearsal import Rehearsals
from service.apps.rounds import Rounds
from service.bus.broker import make_broker, readers_of
from service.bus.subscription import subscribe
from service.cancelling import cancel, done_within
from service.keys import Keys
from service.periodic import PeriodicTask
from service.ports.instruments import OFF
from service.ports.spans import NO_SPANS
from service.ports.storage import StorageUnavailableError
from service.ports.telemetry import Telemetry
from service.rates.spikes import SpikeWatch, thresholds_of
from service.retrying import RetryUntilAvailable
from service.storage.buckets import WINDOW_STEPS
from service.storage.client.connection import client_of, reading_client_of
from service.storage.client.direct import DirectConnections
from service.storage.client.reading_client import Input
from service.storage.client.server import ask, assess
from service.storage.draining import DrainRequest
from service.storage.group_figures import RedisFigures
from service.storage.key_lease import KeyLease
from service.storage.redis_rates import RedisRates
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames
    from service.observability.metrics.leader import Leader
    from service.observability.metrics.worker_instruments import WorkerInstruments
    from service.ports.instruments import Instruments
    from service.ports.spans import Spans
    from service.settings import Settings

_SPIKE_SECONDS = 30
"""Maximum seconds between two checks for spikes."""

_LEAVES_WITHIN = 1.0
"""Maximum seconds for releasing the lease to measure the group, as a server may hang."""

_LAST_READ_WITHIN = 1.0
"""Seconds beyond the blocking time of a read, for its reply to arrive and be accepted at shutdown."""


@dataclass(frozen=True)
class ExitReason:
    """The reason for the end of a worker: a request to stop, or the failure of one of its tasks."""

    error: BaseException | None = None
    """The failure; None after a request. A `StateFormatError` means that the worker cannot read the state."""


class WorkerApp:
    """A worker: start it, then let it serve until it is stopped or fails.

    Several workers can run in one process if their consumer names differ: a worker does not change the
    process's signal handlers, garbage collector or logging. Create and use it inside one event loop.

    Args:
        settings: settings of the worker.
        instruments: count its work; None to count nothing.
        spans: report its batches.

    Raises:
        SettingsError: the settings name an unknown handler.
        HandlerError: two handlers claim one type of events, or a kind of text has a name that is not allowed.
    """

    def __init__(
        self, settings: Settings, instruments: WorkerInstruments | None = None, spans: Spans = NO_SPANS
    ) -> None:
        waits = settings.wait_aof or settings.wait_replicas > 0
        self._settings = settings
        self._table = routing_table(settings)
        self._client = client_of(settings.address, single_connection=waits)
        # WAIT covers the writes of its own connection only, so then all share the client's single one.
        self._direct = None if waits else DirectConnections(self._client)
        self._shared_retrier = RetryUntilAvailable()
        in_cluster = settings.address.mode == "cluster"
        patterns = [n.deltas for n in settings.served] if in_cluster else [_stream_pattern(settings)]
        self._rounds = [Rounds(self._client, settings, stream) for stream in patterns]
        telemetry = Telemetry(instruments or OFF, spans)
        self._partitions = [
            self._partition(names, rounds, telemetry)
            for names, rounds in zip(settings.served, cycle(self._rounds), strict=False)
        ]
        self._reader = reading_client_of(
            settings.address, _inputs_of(self._partitions), settings.linger_ms / 1000
        )
        self._broker = make_broker(settings, self._reader)
        self._rehearsals = Rehearsals(self._client, self._table, settings)
        first = settings.names.all[0]
        self._drain = DrainWatch(DrainRequest(self._client, first), self._reader.reads)
        self._drain_task = PeriodicTask("drain", settings.sweep_interval, self._drain.look, first.deltas)
        self._group_tasks = _spike_tasks(self._client, settings, instruments or OFF)
        self._leader: Leader | None = None
        self._figures_task: PeriodicTask | None = None
        if instruments is not None:
            instruments.know(self._table.routes, self._table.kinds)
            instruments.watch({partition.retrying for partition in self._partitions})
            self._leader = self._group_leader(instruments)
        self._tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        self._first_served: asyncio.Future[Any] = loop.create_future()
        self._exit: asyncio.Future[ExitReason] = loop.create_future()

    def _partition(self, names: StreamNames, rounds: Rounds, telemetry: Telemetry) -> Partition:
        settings, client, keys = self._settings, self._client, Keys(names)
        storage = RedisStorage(client, keys, settings, rounds.clock, self._direct, telemetry.instruments)
        return Partition(names, client, self._table, settings, self._retrier(), storage, telemetry)

    async def start(self) -> None:
        """Begin to serve each partition as soon as its own server is available.

        Return when the first partition is served, or when the worker is to end.
        """
        await self._broker.start()
        self._drain_task.start()
        if self._figures_task is not None:  # also while nothing can be served: then they matter most
            self._figures_task.start()
        for rounds in self._rounds:
            self._run(rounds.run())
        for partition, rounds in zip(self._partitions, cycle(self._rounds), strict=False):
            self._run(self._serve_partition(partition, rounds))
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
            if self._direct is not None:
                self._direct.close()
            await self._client.aclose()
        if reason.error is None:
            logs.logger().info("worker stopped", consumer=self._settings.consumer)
        return reason

    @property
    def started(self) -> bool:
        """True once a partition is served."""
        return self._first_served.done()

    def not_ready(self) -> list[str]:
        """Return a reason for each thing that keeps this worker from serving; empty if it serves."""
        if self._exit.done():
            return ["stopping"]
        if self.is_draining:
            return ["draining: it does not read until `deltaloom drain --resume`, or the end of the request"]
        return [reason for partition in self._partitions if (reason := partition.not_ready())]

    async def status(self) -> dict[str, Any]:
        """Return the state of this worker for people."""
        return {
            "consumer": self._settings.consumer,
            "handlers": [handler.name for handler in self._table.handlers],
            "partitions": await asyncio.gather(*(partition.status() for partition in self._partitions)),
        }

    def when_stopping(self, do: Callable[[], object]) -> None:
        """Call `do` once the worker is asked to stop, or fails."""
        self._exit.add_done_callback(lambda _: do())

    def stop(self, reason: ExitReason = ExitReason()) -> None:
        """Let `start` and `serve` return soon. The first reason counts; further calls do nothing."""
        if not self._exit.done():
            self._exit.set_result(reason)

    @property
    def is_draining(self) -> bool:
        """True while the worker does not read, because `deltaloom drain` has asked for that."""
        return self._drain.is_draining

    async def _serve_partition(self, partition: Partition, rounds: Rounds) -> None:
        subscription = subscribe(self._broker, partition.names, self._settings, partition.process)

        async def start_reading() -> None:
            with contextlib.suppress(StorageUnavailableError):  # in a cluster, the first partition's server
                await self._drain.look()
            await subscription()

        await partition.begin(start_reading, self._rehearsals.rehearse)
        if not self._first_served.done():
            self._first_served.set_result(None)
        rounds.add(partition)

    def _group_leader(self, instruments: WorkerInstruments) -> Leader:
        """Return the candidate for measuring the group, and let it measure from the start on."""
        first, in_cluster = self._settings.names.all[0], self._settings.address.mode == "cluster"
        figures = RedisFigures(self._client, self._settings.names.all, in_cluster=in_cluster)
        lease = KeyLease(self._client, Keys(first).figures_lease, self._settings.consumer)
        leader = instruments.measure_group(figures, lease)
        self._figures_task = PeriodicTask("figures", leader.interval, leader.look, first.deltas)
        return leader

    def _introduce(self) -> None:
        """Log that the worker has started, and begin the tasks that need one available server only."""
        logs.logger().info(
            "worker started",
            consumer=self._settings.consumer,
            stream=_stream_pattern(self._settings),
            handlers=[handler.name for handler in self._table.handlers],
        )
        for each in self._group_tasks:
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
            *(each.end() for each in self._partitions),
            *(each.stop() for each in (self._drain_task, self._figures_task, *self._group_tasks) if each),
        )
        if self._leader is not None:
            await done_within(_LEAVES_WITHIN, self._leader.leave())
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


def _spike_tasks(client: Redis, settings: Settings, instruments: Instruments) -> list[PeriodicTask]:
    """Return the periodic task that checks for spikes, in a list; empty if refusals are not counted."""
    if not settings.spike_window:
        return []
    every = min(settings.spike_window / WINDOW_STEPS, _SPIKE_SECONDS)
    watch = SpikeWatch(RedisRates(client, settings), thresholds_of(settings), every, instruments.raised)
    return [PeriodicTask("spikes", every, watch.look, settings.names.all[0].deltas)]


def _inputs_of(partitions: Iterable[Partition]) -> dict[str, Input]:
    """Return the input of each partition, by the name of its stream."""
    return {
        partition.names.deltas: Input(
            partition.group,
            partition.retrying,
            new_collector=partition.builder,
            entries_at_most=partition.entries_at_most,
            is_urgent=partition.is_urgent,
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
