"""Rehearse all operations of a worker on scratch keys, before it reads an entry.

A missing permission, command or option then gives one clear error, instead of dead letters for valid entries.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError, ResponseError

from deltaloom.streams import GROUP
from handlers.core.identity import PartKey, StreamKey
from service import logs
from service.bus.envelope import open_entry
from service.pipeline.processing import BatchProcessor
from service.ports.storage import RawEntry, SetupError
from service.retrying import RetryUntilAvailable, T
from service.storage.client.availability import unavailable_if_away, without_script
from service.storage.group import ConsumerGroup
from service.storage.kind_retention import KindRetention
from service.storage.output_budget import OutputBudget
from service.storage.overview import Overview
from service.storage.redis_rates import RedisRates
from service.storage.rights import OF_WORKERS, missing_rights
from service.storage.scratch import scratch_keys, scratch_settings
from service.storage.server_clock import ServerClock
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames
    from handlers.core.routing import RoutingTable
    from service.keys import Keys
    from service.settings import Settings

_OTHER = "other"
_RESPONSE = StreamKey("response", "rehearsal")
_PART = PartKey(_RESPONSE, 0, 0, "refusal")
_EVENTS: tuple[bytes, ...] = (
    b'{"type": "response.created", "response": {"model": "rehearsal"}}',
    b'{"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "No"}',
    b'{"type": "rehearsal"}',
    b"no JSON",
    b'{"type": "response.refusal.done", "output_index": 0, "content_index": 0, "refusal": "No."}',
    b'{"type": "response.output_item.done", "output_index": 0, "item": {}}',
    b'{"type": "response.completed", "response": {}}',
)
"""The events of a response, which give a text with alerts, a count and a dead letter."""


class Rehearsals:
    """The rehearsals of a worker: one on a single server, one for each partition in a cluster."""

    def __init__(self, client: Redis, table: RoutingTable, settings: Settings) -> None:
        self._client = client
        self._table = table
        self._settings = settings
        self._one_at_a_time = asyncio.Lock()
        self._done = False

    async def rehearse(self, names: StreamNames) -> None:
        """Rehearse for a partition, unless that was done on its server.

        Raises:
            SetupError, StorageUnavailableError: as in `rehearse`.
        """
        if self._settings.address.mode == "cluster":
            await rehearse(self._client, self._table, self._settings, names)
            return
        async with self._one_at_a_time:
            if not self._done:
                await rehearse(self._client, self._table, self._settings, names)
                self._done = True


async def rehearse(client: Redis, table: RoutingTable, settings: Settings, names: StreamNames) -> None:
    """Load the scripts of a worker, and run them and all its commands once, on scratch keys.

    The keys are on the server of the partition `names`.

    Raises:
        SetupError: the server refuses one; the message is one line with the remedy.
        StorageUnavailableError: the server is unavailable.
    """
    scratch = scratch_settings(settings, names)
    try:
        await _rehearse(client, table, settings, scratch)
    except SetupError as error:
        if error.state != "NOPERM":
            raise
        remedy = await _grant(client, settings, scratch)
        raise SetupError("NOPERM", f"{str(error).removeprefix('NOPERM: ')}{remedy}") from error


async def _grant(client: Redis, settings: Settings, scratch: Settings) -> str:
    """Return the command that grants all missing rights, after a colon; empty if it is not known."""
    try:
        missing = await missing_rights(client, scratch.names.all[0].deltas)
    except (RedisError, OSError):
        return ""
    if not missing:
        return ""
    if len(missing) > len(OF_WORKERS) // 2:  # the keys are refused, not single commands
        count, key = f"{len(missing)} of the {len(OF_WORKERS)} commands", scratch.names.all[0].deltas
        return f": {user_of(settings)} may not run {count} on keys such as {key}, among them {missing[0]}"
    return f": ACL SETUSER {user_of(settings)} {' '.join(f'+{command}' for command in missing)}"


def user_of(settings: Settings) -> str:
    """Return the Redis user of these settings, wherever the URL names it."""
    return str(parse_url(settings.address.urls[0]).get("username") or "default")


async def _rehearse(client: Redis, table: RoutingTable, settings: Settings, scratch: Settings) -> None:
    try:
        with logs.silent(), unavailable_if_away():
            async with scratch_keys(client, scratch) as keys:
                await _Rehearsal(client, table, scratch, keys).run()
            await _try_waiting(client, settings)
    except ResponseError as error:
        message = without_script(str(error))
        remedy = "use Redis 7.0 or later, or Valkey"
        raise SetupError(
            "scripts", f"the server cannot run the scripts of a worker: {message}; {remedy}"
        ) from error


async def _try_waiting(client: Redis, settings: Settings) -> None:
    """Try WAITAOF or WAIT, if the settings require one; for 0 replicas, it returns at once."""
    if settings.wait_aof:
        await client.waitaof(0, 0, 0)
    elif settings.wait_replicas:
        await client.wait(0, 0)


class _SingleAttempt(RetryUntilAvailable):
    """A substitute that runs each step once, without a retry."""

    async def call(self, step: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run the step; raise any error."""
        return await step(*args)


class _Rehearsal:
    """A worker, and another one that leaves pending entries, on scratch keys."""

    def __init__(self, client: Redis, table: RoutingTable, settings: Settings, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._settings = settings
        self._stream = keys.names.deltas
        self._group = ConsumerGroup(client, keys, settings.consumer)
        self._other = ConsumerGroup(client, keys, _OTHER)
        self._storage = RedisStorage(client, keys, settings)
        self._processor = BatchProcessor(
            self._storage, table, keys.names, settings, _SingleAttempt(), open_entry
        )

    async def run(self) -> None:
        """Run the whole rehearsal, with the scripts loaded: the first batch will need them too."""
        await self._storage.load_scripts()
        await self._group.ensure()
        await self._publish(*_EVENTS)
        await self._storage.record_owners({b"0-1": _RESPONSE})
        await self._process(await self._read(self._settings.consumer))
        await self._processor.sweep()
        await self._take_over()
        await self._maintain()
        await self._look_for_spikes()
        state, log, marker = (
            self._keys.state(_RESPONSE),
            self._keys.log(_PART),
            self._keys.marker(_RESPONSE),
        )
        await self._client.delete(state, log, marker, self._keys.item(_PART))

    async def _publish(self, *events: bytes) -> None:
        fields: list[dict[Any, Any]] = [{b"event": event, b"response_id": b"rehearsal"} for event in events]
        for each in fields:
            await self._client.xadd(self._stream, each)

    async def _read(self, consumer: str) -> list[RawEntry]:
        """Read all new entries as a consumer."""
        reply: Any = await self._client.xreadgroup(GROUP, consumer, {self._stream: ">"}, count=100)
        streams = reply.items() if isinstance(reply, dict) else reply
        entries = [
            entry for _, found in streams for entry in (found[0] if isinstance(reply, dict) else found)
        ]
        return [
            RawEntry(entry_id, [each for field in fields.items() for each in field])
            for entry_id, fields in entries
        ]

    async def _process(self, entries: list[RawEntry]) -> None:
        await self._processor.process(self._processor.builder(entries))

    async def _take_over(self) -> None:
        """Take over the pending entries of another consumer."""
        await self._publish(_EVENTS[2], _EVENTS[2])
        await self._read(_OTHER)
        await self._other.renew([b"0-1"])
        inherited = await self._group.adopt(_OTHER)
        claimed = (await self._group.claim(0, "0-0")).deliveries
        ids = list({**inherited, **claimed})
        await self._group.look_at(ids[0], 1)
        await self._process(await self._group.deliver(ids, 1))

    async def _maintain(self) -> None:
        """Run the maintenance of the group and the streams."""
        await self._group.consumers()
        await self._other.leave()
        await self._group.remove_idle_consumers(round(self._settings.claim_time * 1000))
        retention_ms = round(self._settings.retention * 1000)
        await self._group.trim(retention_ms)
        if self._settings.retention_group is not None:
            await self._group.trim_for(
                self._settings.retention_group, retention_ms, self._settings.retention_bytes
            )
        kinds = self._settings.kind_retentions
        await KindRetention(self._client, self._keys, kinds, self._settings.retention).remove_aged()
        if self._settings.retention_bytes is not None:
            await OutputBudget(self._client, self._keys.names, self._settings.retention_bytes).trim()
        overview = Overview(self._client, ServerClock())
        overview.add(self._keys)
        await overview.unsettled()
        await overview.groups()

    async def _look_for_spikes(self) -> None:
        partitions = [self._keys.names]
        rates = RedisRates(self._client, self._settings, partitions, looks_first=False)
        turn = await rates.acquire_leader_lock(1000)
        if turn is not None:
            await rates.counted(turn.now_ms)
            await rates.write(turn, ())
