"""A partition without worker processes: its storage and any number of consumers, to be run step by step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from deltaloom import GROUP, StreamNames
from handlers import BUILT_IN
from handlers.core.routing import Handler, RoutingTable
from service.bus.envelope import open_entry
from service.keys import Keys
from service.pipeline.batch import Batch
from service.pipeline.decoded_batch import DecodedBatch
from service.pipeline.event_router import EventRouter
from service.pipeline.processing import BatchProcessor
from service.pipeline.reclaiming import Reclaimer
from service.pipeline.settling import settle
from service.ports.instruments import OFF
from service.ports.telemetry import Telemetry
from service.retrying import RetryUntilAvailable
from service.settings import Settings
from service.storage.group import ConsumerGroup
from service.storage.store import RedisStorage
from tests.streams import add, raw, read_as

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis

    from service.ports.instruments import Instruments
    from service.ports.storage import Committed, RawEntry, Storage


class Consumer:
    """A worker with its consumer group, without a process around it."""

    def __init__(
        self,
        redis: Redis,
        settings: Settings,
        table: RoutingTable,
        storage: Storage | None = None,
        instruments: Instruments = OFF,
    ) -> None:
        keys = Keys(StreamNames(settings.prefix))
        self.redis = redis
        self.names = keys.names
        self.name = settings.consumer
        retrying = RetryUntilAvailable()
        self.group = ConsumerGroup(redis, keys, self.name)
        storage = storage or RedisStorage(redis, keys, settings, instruments=instruments)
        self.worker = BatchProcessor(
            storage, table, keys.names, settings, retrying, open_entry, Telemetry(instruments)
        )
        self.reclaimer = Reclaimer(self.group, self.worker, settings, retrying, instruments)

    async def read(self, count: int = 1000) -> list[RawEntry]:
        """Return the next entries that the group delivers to this consumer."""
        await self.group.ensure()
        read = await read_as(self.redis, self.names.deltas, GROUP, self.name, count)
        return [raw(entry_id, fields) for entry_id, fields in read]

    async def process(self, entries: Sequence[RawEntry]) -> None:
        """Process a batch that was read."""
        await self.worker.process(self.worker.builder(entries))

    async def process_later(self, entries: Sequence[RawEntry]) -> None:
        """Process a batch as if it was read a second ago, so that others may have taken entries over."""
        builder = self.worker.builder(entries)
        builder.read_ms -= 1000
        await self.worker.process(builder)

    async def work(self, count: int = 1000) -> None:
        """Read a batch and process it."""
        await self.process(await self.read(count))


class Bench:
    """A partition under one prefix, with the settings of its workers."""

    def __init__(self, redis: Redis, prefix: str, **settings: Any) -> None:
        self.redis = redis
        self.prefix = prefix
        self.names = StreamNames(prefix)
        self.settings = Settings(prefix=prefix, **settings)
        self.storage = RedisStorage(redis, Keys(self.names), self.settings)

    def consumer(
        self,
        name: str = "one",
        handlers: Iterable[Handler] = BUILT_IN.values(),
        storage: Storage | None = None,
        instruments: Instruments = OFF,
    ) -> Consumer:
        """Return a consumer as another process would have it, with this storage or a new one."""
        settings = self.settings.model_copy(update={"consumer": name})
        return Consumer(self.redis, settings, RoutingTable(handlers), storage, instruments)

    async def publish(
        self, *events: dict[str, Any] | str, response_id: str = "resp_1", **context: str
    ) -> None:
        """Publish each event as an entry."""
        await self._publish("*", events, response_id, context)

    async def publish_at(
        self, ms: int, *events: dict[str, Any] | str, response_id: str = "resp_1", **context: str
    ) -> None:
        """Publish each event as an entry with an id of this time, in milliseconds since the epoch."""
        await self._publish(f"{ms}-*", events, response_id, context)

    async def _publish(
        self, entry_id: str, events: Iterable[dict[str, Any] | str], response_id: str, context: dict[str, str]
    ) -> None:
        for event in events:
            body = event if isinstance(event, str) else json.dumps(event)
            fields = {"event": body, "response_id": response_id, **context}
            await add(self.redis, self.names.deltas, fields, entry_id)

    async def now_ms(self) -> int:
        """Return the server's time in milliseconds since the epoch."""
        seconds, microseconds = await self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def commit(self, entries: Sequence[RawEntry]) -> Committed:
        """Commit a batch without settling it, like a worker that stops between the two scripts."""
        return await self.storage.commit(self.batch(entries).commit, whole=True)

    async def settle(self, committed: Committed) -> int:
        """Settle the responses that a commit loaded, and return the number of texts written."""
        table = RoutingTable(BUILT_IN.values())
        return await settle(
            self.storage, table, committed.loaded, committed.low_water, committed.replication_id
        )

    async def member_scores(self, name: str) -> dict[str, int]:
        """Return the members of a sorted set (`open`, `waiting`) with their scores in milliseconds."""
        found: Any = await self.redis.zrange(self.names.name(name), 0, -1, withscores=True)
        return {member.decode(): int(score) for member, score in found}

    def batch(self, entries: Sequence[RawEntry]) -> Batch:
        """Return the batch that the built-in handlers make of the entries."""
        router = EventRouter(
            RoutingTable(BUILT_IN.values()),
            open_entry,
            stream=self.names.deltas,
            max_event_bytes=2**20,
            max_array_length=1000,
            max_response_parts=512,
        )
        return Batch(DecodedBatch.of(router.rules, entries), router, now_ms=1)

    async def pending(self) -> dict[str, int]:
        """Return the number of pending entries of each consumer."""
        summary = await self.redis.xpending(self.names.deltas, GROUP)
        return {each["name"].decode(): each["pending"] for each in summary["consumers"]}


def delta(number: int, text: str, kind: str = "reasoning_text") -> dict[str, Any]:
    """Return a numbered delta of the test's only part."""
    return {
        "type": f"response.{kind}.delta",
        "delta": text,
        "sequence_number": number,
        "item_id": "item_1",
        "output_index": 0,
        "content_index": 0,
    }


def done(text: str, kind: str = "reasoning_text") -> dict[str, Any]:
    """Return the closing event of the test's only part, with its whole text."""
    event = delta(99, "", kind)
    del event["delta"]
    field = "refusal" if kind == "refusal" else "text"
    return {**event, "type": f"response.{kind}.done", field: text}


COMPLETED = {"type": "response.completed", "response": {"output": []}}
KEEPALIVE = {"type": "keepalive"}
