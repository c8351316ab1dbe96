"""Compose settings, handlers, storage and FastStream into a worker; the only module that knows them all."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from faststream import FastStream

from handlers import BUILT_IN, ENTRY_POINT_GROUP, OFF_BY_DEFAULT
from handlers.core.routing import Handler, RoutingTable
from service import logs
from service.apps.partition import Partition
from service.bus.broker import make_broker, readers_of
from service.bus.subscription import subscribe
from service.cancelling import cancelled
from service.periodic import PeriodicTask
from service.rates.spikes import SpikeWatch, thresholds_of
from service.rehearsal import Rehearsals
from service.retrying import RetryUntilAvailable
from service.settings import Settings, SettingsError
from service.storage.buckets import WINDOW_STEPS
from service.storage.client.connection import client_of, reading_client_of
from service.storage.client.reading_client import Input
from service.storage.client.server import ServerFinding, ask, assess
from service.storage.redis_rates import RedisRates

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from redis.asyncio import Redis

_SPIKE_SECONDS = 30
"""Maximum seconds between two checks for spikes."""

_LAST_READ_WITHIN = 1.0
"""Seconds beyond the blocking time of a read, for its reply to arrive and be accepted at shutdown."""


def known_handlers() -> dict[str, Handler]:
    """Return all available handlers by name: built-in ones, and those of installed packages."""
    brought: Iterable[Handler] = (point.load() for point in entry_points(group=ENTRY_POINT_GROUP))
    return {**BUILT_IN, **{handler.name: handler for handler in brought}}


def routing_table(settings: Settings) -> RoutingTable:
    """Return the routing table of the enabled handlers.

    Raises:
        SettingsError: the setting names an unknown handler.
    """
    known = known_handlers()
    if settings.handlers is None:
        return RoutingTable(handler for name, handler in known.items() if name not in OFF_BY_DEFAULT)
    names = settings.handlers.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        message = f"DELTALOOM_HANDLERS={settings.handlers!r} is not allowed: {', '.join(known)}"
        raise SettingsError(message)
    return RoutingTable(known[name] for name in dict.fromkeys(names))


async def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT; it then finishes the batches in progress.

    A second signal ends the process at once; other workers take over its entries.
    """
    table = routing_table(settings)
    waits = settings.wait_aof or settings.wait_replicas > 0
    client = client_of(settings.address, single_connection=waits)
    retriers = _retriers(settings)
    partitions = [
        Partition(names, client, table, settings, retrying)
        for names, retrying in zip(settings.served, retriers, strict=False)
    ]
    reader = reading_client_of(settings.address, _inputs_of(partitions))
    broker = make_broker(settings, reader)

    async def prepare() -> None:
        _leave_at_once_on_second_signal(app)

    rehearsals, served = Rehearsals(client, table, settings), asyncio.Event()
    beginning: list[asyncio.Task[None]] = []
    reading: list[asyncio.Task[None]] = []

    async def serve(partition: Partition) -> None:
        reads = subscribe(broker, partition.names, settings, partition.process)
        await partition.begin(reads, rehearsals.rehearse)
        served.set()
        await partition.watch_format()

    async def introduce() -> None:
        await served.wait()
        logs.logger().info(
            "worker started",
            consumer=settings.consumer,
            stream=_inputs(settings),
            handlers=[handler.name for handler in table.handlers],
        )
        _collect_garbage_rarely()
        for each in spikes:
            each.start()
        _log_server_findings(assess(await next(retriers).call(ask, client, "REDIS_URL")))

    async def begin() -> None:
        beginning.extend(map(asyncio.create_task, (introduce(), *map(serve, partitions))))
        await asyncio.wait(beginning, return_when=asyncio.FIRST_EXCEPTION)
        if _failures(beginning):
            app.exit()

    async def end() -> None:
        await cancelled(*beginning)
        await asyncio.gather(*(each.end() for each in partitions), *(each.stop() for each in spikes))
        await reader.reads.drain(settings.block_ms / 1000 + _LAST_READ_WITHIN)
        reading.extend(readers_of(broker))

    async def leave() -> None:
        await cancelled(*reading)
        await reader.aclose()
        timeout = settings.shutdown_timeout / 2
        await asyncio.gather(*(partition.leave(timeout) for partition in partitions))

    spikes = _spike_rounds(client, settings)

    app = FastStream(
        broker,
        logger=logging.getLogger(logs.FASTSTREAM_LOGGER),
        on_startup=[prepare],
        after_startup=[begin],  # may wait for one server while others are read
        on_shutdown=[end],
        after_shutdown=[leave],
    )
    try:
        await app.run(log_level=logging.DEBUG)
    finally:
        await client.aclose()
    for failure in _failures(beginning):
        raise failure
    logs.logger().info("worker stopped", consumer=settings.consumer)


def _failures(tasks: Iterable[asyncio.Task[None]]) -> list[BaseException]:
    """Return the exceptions raised by tasks that have ended."""
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    return [error for task in ended if (error := task.exception())]


def _spike_rounds(client: Redis, settings: Settings) -> list[PeriodicTask]:
    """Return the periodic task that checks for spikes, in a list; empty if refusals are not counted."""
    if not settings.spike_window:
        return []
    every = min(settings.spike_window / WINDOW_STEPS, _SPIKE_SECONDS)
    watch = SpikeWatch(RedisRates(client, settings), thresholds_of(settings), every)
    return [PeriodicTask("spikes", every, watch.look, settings.names.all[0].deltas)]


def _collect_garbage_rarely() -> None:
    """Make the garbage collector run rarely, and only on new objects.

    A batch creates some ten thousand objects without reference cycles. Searching them for cycles every 700
    objects, and all imported objects now and then, took as long as all other work.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _retriers(settings: Settings) -> Iterator[RetryUntilAvailable]:
    """Yield one retrier for all callers; in a cluster, where servers fail independently, one for each."""
    one = RetryUntilAvailable()
    while True:
        yield RetryUntilAvailable() if settings.address.mode == "cluster" else one


def _inputs_of(partitions: Iterable[Partition]) -> dict[str, Input]:
    """Return the input of each partition, by the name of its stream."""
    return {
        partition.names.deltas: Input(
            partition.group, partition.retrying, partition.builder, partition.entries_at_most
        )
        for partition in partitions
    }


def _inputs(settings: Settings) -> str:
    """Return the names of the worker's streams: one name, or a pattern such as `deltaloom:{0,1,2}:deltas`."""
    first, *others = (names.deltas for names in settings.served)
    if not others:
        return first
    numbers = ",".join(str(names.partition) for names in settings.served)
    return f"{settings.prefix}:{{{numbers}}}:deltas"


def _log_server_findings(findings: Iterable[ServerFinding]) -> None:
    """Log the server's guarantees, since deltaloom cannot be safer than its server."""
    for finding in findings:
        if finding.state == "ok":
            logs.logger().info("server", what=finding.what, says=finding.says)
        else:
            logs.logger().warning("server at risk", what=finding.what, says=finding.says)


def _leave_at_once_on_second_signal(app: FastStream) -> None:
    received: list[int] = []

    def on_signal(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        app.exit()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
