"""The one file that knows everyone: it joins settings, handlers, storage and FastStream into a worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from faststream import FastStream
from redis.asyncio import Redis

from deltaloom.streams import StreamNames
from handlers import BUILT_IN, ENTRY_POINT_GROUP, OFF_BY_DEFAULT
from handlers.core.routing import Handler, RoutingTable
from service import logs
from service.bus.envelope import open_entry
from service.bus.subscription import make_broker, subscribe
from service.keys import Keys
from service.patience import Patience
from service.pipeline.reclaiming import Reclaimer
from service.pipeline.worker import Worker
from service.ports import Entry, RawEntry, StorageUnavailableError
from service.settings import Settings, SettingsError
from service.storage.connection import patient_client
from service.storage.group import ConsumerGroup
from service.storage.server import Finding, ask, assess
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


def known_handlers() -> dict[str, Handler]:
    """Built-in handlers, and those that installed packages bring."""
    brought: Iterable[Handler] = (point.load() for point in entry_points(group=ENTRY_POINT_GROUP))
    return {**BUILT_IN, **{handler.name: handler for handler in brought}}


def routing_table(settings: Settings) -> RoutingTable:
    """The table of the handlers that are on; `SettingsError` names one that is not known."""
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
    """Run one worker until it is told to stop (SIGTERM, SIGINT): it finishes the batch in hand.

    A second signal ends the process at once; what it had in hand is taken over by others.
    """
    names = StreamNames(settings.prefix)
    keys = Keys(names)
    table = routing_table(settings)
    patience = Patience()
    waits = settings.wait_aof or settings.wait_replicas > 0
    client = Redis.from_url(settings.redis_url, single_connection_client=waits)
    group = ConsumerGroup(client, keys, settings.consumer)
    worker = Worker(RedisStorage(client, keys, settings), table, names, settings, patience)
    reclaimer = Reclaimer(group, worker, settings, patience, _open_raw)
    broker = make_broker(settings, patient_client(settings.redis_url, group, patience))
    subscribe(broker, names, settings, worker.take)

    async def trim() -> None:
        await group.trim(round(settings.retention * 1000))

    rounds = (
        _Round("sweep", settings.sweep_interval, worker.sweep),
        _Round("reclaim", settings.claim_time / 3, reclaimer.reclaim),
        _Round("keep", settings.claim_time / 3, reclaimer.keep),
        _Round("retire", settings.claim_time * 4, reclaimer.retire),
        _Round("trim", settings.trim_interval, trim),
    )

    async def prepare() -> None:
        _leave_at_once_on_second_signal(app)
        await patience.until_done(group.ensure)
        _tell(assess(await patience.until_done(ask, client, "REDIS_URL")))

    async def begin() -> None:
        logs.logger().info(
            "worker started",
            consumer=settings.consumer,
            stream=names.deltas,
            handlers=[handler.name for handler in table.handlers],
        )
        for each in rounds:
            each.start()

    async def inherit() -> None:
        await reclaimer.inherit()

    async def end() -> None:
        for each in rounds:
            await each.stop()

    async def leave() -> None:
        with contextlib.suppress(StorageUnavailableError):
            await group.leave()

    app = FastStream(
        broker,
        logger=logging.getLogger(logs.FASTSTREAM_LOGGER),
        on_startup=[prepare],
        after_startup=[begin, inherit],
        on_shutdown=[end],
        after_shutdown=[leave],
    )
    try:
        await app.run(log_level=logging.DEBUG)
    finally:
        await client.aclose()
    logs.logger().info("worker stopped", consumer=settings.consumer)


def _tell(findings: Iterable[Finding]) -> None:
    """Say what the server promises, since nothing here can be safer than that."""
    for finding in findings:
        if finding.state == "ok":
            logs.logger().info("server", what=finding.what, says=finding.says)
        else:
            logs.logger().warning("server at risk", what=finding.what, says=finding.says)


def _open_raw(raw: RawEntry, deliveries: int) -> Entry:
    return open_entry(raw.id, raw.fields, deliveries)


def _leave_at_once_on_second_signal(app: FastStream) -> None:
    told: list[int] = []

    def on_signal(number: int) -> None:
        if told:
            os._exit(128 + number)
        told.append(number)
        app.exit()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


class _Round:
    """Something done again and again, whatever goes wrong; while Redis is away, it is put off."""

    def __init__(self, name: str, interval: float, step: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._interval = interval
        self._step = step
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        # More than once: a cancellation that reaches redis-py while it connects is lost.
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.1)

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except StorageUnavailableError as error:
                logs.logger().debug("put off", round=self._name, error=str(error))
            except Exception:  # noqa: BLE001 - logged; what one round leaves, the next one does
                logs.logger().exception("round failed", round=self._name)
            await asyncio.sleep(self._interval)
