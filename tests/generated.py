"""Generated responses over several partitions, and the verdict on what came of them: the chaos bench's.

Its producers know exactly which of their entries are stored, so that a server may fail under them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException, RedisError

from chaos.generator import MAX_ARRAY_LENGTH, MAX_EVENT_BYTES, TAG, make_response
from chaos.verdict import Ending, Leftover, Message, Verdict
from deltaloom import GROUP
from service.storage.reading import entries_of
from tests.streams import add, entries
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

    from chaos.generator import EntryToStore, Response
    from deltaloom import Partitions, StreamNames

IDLE_TIMEOUT = 10
SETTINGS: dict[str, object] = {
    "idle_timeout": IDLE_TIMEOUT,
    "sweep_interval": 0.5,
    "claim_time": 2,
    "max_event_bytes": MAX_EVENT_BYTES,
    "max_array_length": MAX_ARRAY_LENGTH,
    "block_ms": 200,
}
"""What the workers have to be told."""

_AWAY = (RedisError, RedisClusterException, OSError)
_LOOKED_AT = 100
"""Entries at a stream's end, among which the one is that may or may not have been stored."""


@dataclass
class _Lane:
    """One partition's entries in their order, of all responses in turn."""

    names: StreamNames
    responses: list[Response] = field(default_factory=list)

    def entries(self) -> Iterator[tuple[Response, EntryToStore]]:
        left = {response.name: (response, iter(response.entries)) for response in self.responses}
        while left:
            for name, (response, rest) in list(left.items()):
                entry = next(rest, None)
                if entry is None:
                    del left[name]
                else:
                    yield response, entry


class Generated:
    """So many responses, each in its partition."""

    def __init__(self, partitions: Partitions, seed: str, count: int) -> None:
        self.partitions = partitions
        self.verdict = Verdict(widest_gap_ms=IDLE_TIMEOUT * 500)
        lanes = {names: _Lane(names) for names in partitions.all}
        for number in range(count):
            response = make_response(seed, 0, number)
            self.verdict.expect(response)
            lanes[partitions.of(response.name)].responses.append(response)
        self._left = {names: list(lane.entries()) for names, lane in lanes.items()}
        self.added: Counter[StreamNames] = Counter()

    async def publish(self, client: Redis, share: float = 1.0) -> None:
        """Publish this share of what is left, in all partitions at once, each in its order."""
        await asyncio.gather(*(self._publish(client, names, share) for names in self.partitions.all))

    async def _publish(self, client: Redis, names: StreamNames, share: float) -> None:
        left = self._left[names]
        now, self._left[names] = left[: round(len(left) * share)], left[round(len(left) * share) :]
        for response, entry in now:
            self.verdict.stored(response.name, await self._stored(client, names, entry))
            self.added[names] += 1

    async def _stored(self, client: Redis, names: StreamNames, entry: EntryToStore) -> str:
        """Store an entry once, however often it takes, and return its id."""
        try:
            return await add(client, names.deltas, entry.fields)
        except _AWAY:
            pass
        while True:
            await asyncio.sleep(0.05)
            try:
                for entry_id, fields in entries_of(await client.xrevrange(names.deltas, count=_LOOKED_AT)):
                    if fields.get(TAG.encode()) == str(entry.fields[TAG]).encode():
                        return entry_id
                return await add(client, names.deltas, entry.fields)
            except _AWAY:
                continue

    async def is_read(self, client: Redis) -> bool:
        """Whether the workers have read and acknowledged all that was published."""
        for names in self.partitions.all:
            for group in await client.xinfo_groups(names.deltas):
                if group["name"] == GROUP.encode() and (group["pending"] or group["lag"]):
                    return False
        return True

    async def wait_until_read(self, client: Redis) -> None:
        """Wait for it, also while a server is away."""

        async def is_read() -> bool:
            try:
                return await self.is_read(client)
            except _AWAY:
                return False

        await wait_until(is_read, 60, message="everything is read", interval=0.05)

    async def judge(self, client: Redis) -> None:
        """Wait until all is done, and fail if anything was lost, wrong, doubled, or left behind."""
        await self.wait_until_read(client)
        await wait_until(lambda: self._nothing_is_open(client), 60, message="nothing is open", interval=0.1)
        counts: Counter[str] = Counter()
        for names in self.partitions.all:
            await self._read_outputs(client, names)
            found: Any = await client.hgetall(names.name("counts"))
            counts.update({name.decode(): int(value) for name, value in found.items()})
        keys = tuple([key async for key in self._keys(client)])
        self.verdict.end(Ending(counts, keys, await self._entries_added(client), 0, 0))
        assert self.verdict.violations == {}, self.verdict.examples
        assert self.verdict.totals["texts out"]

    async def _nothing_is_open(self, client: Redis) -> bool:
        for names in self.partitions.all:
            if await client.zcard(names.name("open")) or await client.zcard(names.name("waiting")):
                return False
        return True

    async def _read_outputs(self, client: Redis, names: StreamNames) -> None:
        for entry_id, fields in await entries(client, names.assembled):
            message = Message(entry_id, json.loads(fields[b"__data__"]))
            self.verdict.text(message)
        for entry_id, fields in await entries(client, names.alerts):
            self.verdict.alert(Message(entry_id, json.loads(fields[b"__data__"])))
        for entry_id, fields in await entries(client, names.dead_letters):
            letter = {name.decode(): value.decode() for name, value in fields.items()}
            self.verdict.dead_letter(Message(entry_id, letter))

    async def _entries_added(self, client: Redis) -> int:
        total = 0
        for names in self.partitions.all:
            info: Any = await client.xinfo_stream(names.deltas)
            total += info["entries-added"]
        return total

    async def _keys(self, client: Redis) -> Any:
        """What is there beside what may stay."""
        stays = {
            names.name(suffix)
            for names in self.partitions.all
            for suffix in ("deltas", "assembled", "alerts", "dead-letters", "counts")
        }
        async for key in client.scan_iter(match=f"{self.partitions.prefix}:*", count=1000):
            name = key.decode()
            if name not in stays:
                yield Leftover(name, expires=await client.pttl(key) >= 0 and ":log:" not in name)
