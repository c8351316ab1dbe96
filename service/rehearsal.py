"""Try what a worker does on scratch keys, before it reads an entry.

A missing right, command or option is one clear line then, and not the end of healthy entries.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from deltaloom.streams import GROUP
from handlers.core.identity import PartKey, StreamKey
from service import logs
from service.bus.envelope import open_entry
from service.patience import Patience, T
from service.pipeline.worker import Worker
from service.ports.storage import RawEntry, SetUpWronglyError
from service.storage.client.availability import unavailable_if_away, without_script
from service.storage.group import ConsumerGroup
from service.storage.kind_retention import KindRetention
from service.storage.rates import RedisRates
from service.storage.scratch import scratch_keys, scratch_settings
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
"""The events of a response: they make a text with its alerts, a count and a dead letter."""


class Rehearsals:
    """The rehearsals of a worker: one on its server; in a cluster one where each partition lies."""

    def __init__(self, client: Redis, table: RoutingTable, settings: Settings) -> None:
        self._client = client
        self._table = table
        self._settings = settings
        self._one_at_a_time = asyncio.Lock()
        self._done = False

    async def rehearse(self, names: StreamNames) -> None:
        """Rehearse for a partition, unless that was done on its server; raises what `rehearse` does."""
        if self._settings.address.mode == "cluster":
            await rehearse(self._client, self._table, self._settings, names)
            return
        async with self._one_at_a_time:
            if not self._done:
                await rehearse(self._client, self._table, self._settings, names)
                self._done = True


async def rehearse(client: Redis, table: RoutingTable, settings: Settings, names: StreamNames) -> None:
    """Run all that a worker runs on a server, once, on keys that lie where those of a partition do.

    Raises:
        SetUpWronglyError: the server does not let it; the message is one line with the remedy.
        StorageUnavailableError: the server is away.
    """
    scratch = scratch_settings(settings, names)
    try:
        with logs.silent(), unavailable_if_away():
            async with scratch_keys(client, scratch) as keys:
                await _Rehearsal(client, table, scratch, keys).run()
            await _wait_for_nothing(client, settings)
    except ResponseError as error:
        said = without_script(str(error))
        remedy = "use Redis 7.0 or later, or Valkey"
        raise SetUpWronglyError("scripts", f"it cannot run what a worker runs: {said}; {remedy}") from error


async def _wait_for_nothing(client: Redis, settings: Settings) -> None:
    """Try what the settings have a worker wait by; of no replica and no disk, it answers at once."""
    if settings.wait_aof:
        await client.waitaof(0, 0, 0)
    elif settings.wait_replicas:
        await client.wait(0, 0)


class _Impatience(Patience):
    """Takes each step once."""

    async def until_done(self, step: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Take it; whatever is wrong, say so."""
        return await step(*args)


class _Rehearsal:
    """One worker, and another one that leaves entries behind, on scratch keys."""

    def __init__(self, client: Redis, table: RoutingTable, settings: Settings, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._settings = settings
        self._stream = keys.names.deltas
        self._group = ConsumerGroup(client, keys, settings.consumer)
        self._other = ConsumerGroup(client, keys, _OTHER)
        self._storage = RedisStorage(client, keys, settings)
        self._worker = Worker(self._storage, table, keys.names, settings, _Impatience(), open_entry)

    async def run(self) -> None:
        """Do all of it."""
        await self._group.ensure()
        await self._publish(*_EVENTS)
        await self._storage.note_owners({b"0-1": _RESPONSE})
        await self._take(await self._read(self._settings.consumer))
        await self._worker.sweep()
        await self._take_over()
        await self._tidy_up()
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
        """Give a consumer all that is unread."""
        reply: Any = await self._client.xreadgroup(GROUP, consumer, {self._stream: ">"}, count=100)
        streams = reply.items() if isinstance(reply, dict) else reply
        entries = [
            entry for _, found in streams for entry in (found[0] if isinstance(reply, dict) else found)
        ]
        return [
            RawEntry(entry_id, [each for field in fields.items() for each in field])
            for entry_id, fields in entries
        ]

    async def _take(self, entries: list[RawEntry]) -> None:
        await self._worker.take(self._worker.gathering(entries))

    async def _take_over(self) -> None:
        """Do what is done about entries that another worker has left."""
        await self._publish(_EVENTS[2], _EVENTS[2])
        await self._read(_OTHER)
        await self._other.keep([b"0-1"])
        inherited = await self._group.inherit(_OTHER)
        claimed = (await self._group.claim(0, "0-0")).deliveries
        ids = list({**inherited, **claimed})
        await self._group.look_at(ids[0], 1)
        await self._take(await self._group.deliver(ids, 1))

    async def _tidy_up(self) -> None:
        """Do what is done now and then."""
        await self._group.consumers()
        await self._other.leave()
        await self._group.retire(round(self._settings.claim_time * 1000))
        await self._group.trim(round(self._settings.retention * 1000))
        kinds = self._settings.kind_retentions
        await KindRetention(self._client, self._keys, kinds, self._settings.retention).remove_aged()

    async def _look_for_spikes(self) -> None:
        rates = RedisRates(self._client, self._settings, [self._keys.names])
        turn = await rates.take_turn(1000)
        if turn is not None:
            await rates.counted(turn.now_ms)
            await rates.write(turn, ())
