"""The one file that knows everyone: it joins settings, handlers, storage and FastStream into a worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from faststream import FastStream
from redis.asyncio import Redis

from deltaloom.streams import StreamNames
from handlers import BUILT_IN, ENTRY_POINT_GROUP, OFF_BY_DEFAULT
from handlers.core.routing import Handler, RoutingTable
from service import logs
from service.bus.subscription import make_broker, subscribe
from service.keys import Keys
from service.pipeline.patience import persistently
from service.pipeline.worker import Worker
from service.ports import StorageUnavailableError
from service.settings import Settings, SettingsError
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Iterable


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
    """Run one worker until it is told to stop (SIGTERM, SIGINT): it finishes the batch in hand."""
    log = logs.logger().bind(consumer=settings.consumer)
    names = StreamNames(settings.prefix)
    table = routing_table(settings)
    client = Redis.from_url(settings.redis_url)
    storage = RedisStorage(client, Keys(names), settings)
    worker = Worker(storage, table, names, settings)
    broker = make_broker(settings)
    subscribe(broker, names, settings, worker.take)
    sweeping: list[asyncio.Task[None]] = []

    async def prepare() -> None:
        await persistently(storage.ensure_group)

    async def begin() -> None:
        sweeping.append(asyncio.create_task(_sweep(worker, settings)))
        log.info(
            "worker started",
            stream=names.deltas,
            handlers=[handler.name for handler in table.handlers],
        )

    async def end() -> None:
        for task in sweeping:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    app = FastStream(
        broker,
        logger=logging.getLogger(logs.FASTSTREAM_LOGGER),
        on_startup=[prepare],
        after_startup=[begin],
        on_shutdown=[end],
    )
    try:
        await app.run(log_level=logging.DEBUG)
    finally:
        await client.aclose()
    log.info("worker stopped")


async def _sweep(worker: Worker, settings: Settings) -> None:
    """Sweep now and then, whatever goes wrong. While storage is away, the batch in hand says so."""
    while True:
        try:
            await worker.sweep()
        except StorageUnavailableError as error:
            logs.logger().debug("sweep put off", error=str(error))
        except Exception:  # noqa: BLE001 - logged; what one sweep leaves, the next one settles
            logs.logger().exception("sweep failed")
        await asyncio.sleep(settings.sweep_interval)
