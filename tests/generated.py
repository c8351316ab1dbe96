"""Generated responses over several partitions, and the chaos bench's verdict on their outputs.

The expectation is derived from the input that is stored at the end, so that servers may fail during a test.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import RedisClusterException, RedisError

from chaos.generator import MAX_ARRAY_LENGTH, MAX_EVENT_BYTES, TAG, make_response
from chaos.verdict import Ending, Leftover, Message, Verdict
from deltaloom import GROUP
from tests.streams import add, entries
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from chaos.generator import EntryToStore, Response
    from deltaloom import Partitions, StreamNames

IDLE_TIMEOUT = 20
_WIDEST_GAP_MS = IDLE_TIMEOUT * 700
"""Maximum gap between two entries of a response, in milliseconds; after a longer gap it may be abandoned."""

SETTINGS: dict[str, object] = {
    "idle_timeout": IDLE_TIMEOUT,
    "sweep_interval": 0.5,
    "claim_time": 2,
    "max_event_bytes": MAX_EVENT_BYTES,
    "max_array_length": MAX_ARRAY_LENGTH,
    "block_ms": 200,
}
"""Settings of the workers."""

AWAY = (RedisError, RedisClusterException, OSError)
"""Errors that a client raises while a server is unavailable."""

_AUDIT = "audit"
"""A group that reads nothing, so that the input is never trimmed."""


@dataclass
class Lane:
    """Entries of one producer for one partition: those of its responses in turn, each response in order."""

    names: StreamNames
    left: list[EntryToStore]
    confirmed: list[str] = field(default_factory=list)
    """Ids of the entries that are certainly stored."""

    def take(self, count: int) -> list[EntryToStore]:
        """Remove and return the next entries."""
        now, self.left = self.left[:count], self.left[count:]
        return now


def _in_turn(responses: list[Response]) -> list[EntryToStore]:
    rounds = zip_longest(*(response.entries for response in responses))
    return [entry for each in rounds for entry in each if entry is not None]


class Generated:
    """Generated responses, each in its partition.

    A producer that does not know whether an entry is stored publishes it again. So the expectation depends on
    the entries that are stored in the end, and on their order.
    """

    def __init__(self, partitions: Partitions, seed: str, count: int, producers: int = 1) -> None:
        self.partitions = partitions
        self.verdict = Verdict(widest_gap_ms=_WIDEST_GAP_MS)
        self.lanes: list[Lane] = []
        self._responses: dict[str, Response] = {}
        for producer in range(producers):
            responses: dict[StreamNames, list[Response]] = {names: [] for names in partitions.all}
            for number in range(producer, count, producers):
                response = make_response(seed, 0, number)
                self._responses[response.name] = response
                responses[partitions.of(response.name)].append(response)
            self.lanes += [Lane(names, _in_turn(own)) for names, own in responses.items()]

    @property
    def entries(self) -> int:
        """Return the number of entries to publish."""
        return sum(len(response.entries) for response in self._responses.values())

    async def keep_all(self, client: Redis) -> None:
        """Create a group that keeps all published entries from being trimmed."""
        for names in self.partitions.all:
            await client.xgroup_create(names.deltas, _AUDIT, id="0", mkstream=True)

    async def publish(self, client: Redis, share: float = 1.0) -> None:
        """Publish this share of the remaining entries, concurrently in all lanes."""
        await asyncio.gather(*(self._publish(client, lane, share) for lane in self.lanes))

    async def _publish(self, client: Redis, lane: Lane, share: float) -> None:
        async def stored(entry: EntryToStore) -> str | None:
            try:
                return await add(client, lane.names.deltas, entry.fields)
            except AWAY:
                return None

        for entry in lane.take(round(len(lane.left) * share)):
            entry_id = await wait_until(partial(stored, entry), 60, message="an entry is stored")
            lane.confirmed.append(cast("str", entry_id))

    async def wait_until_read(self, client: Redis) -> None:
        """Wait until workers have acknowledged all published entries. Unavailable servers are asked again."""
        await wait_until(lambda: self._is(client, _is_read), 120, message="everything is read", interval=0.05)

    async def wait_until_unread(self, client: Redis) -> None:
        """Wait until entries are unread. Unavailable servers are asked again."""
        await wait_until(lambda: self._is(client, _is_unread), 30, message="something is unread")

    async def _is(self, client: Redis, state: Callable[[Redis, StreamNames], Awaitable[bool]]) -> bool:
        """Return whether all partitions are in a state; False while a server is unavailable."""
        try:
            return all([await state(client, names) for names in self.partitions.all])
        except AWAY:
            return False

    async def judge(self, client: Redis) -> None:
        """Wait until all is processed, and fail if anything was lost, wrong, repeated or left behind."""
        await self.wait_until_read(client)
        await wait_until(lambda: self._is(client, _is_over), 120, message="nothing is open", interval=0.1)
        counts: Counter[str] = Counter()
        for names in self.partitions.all:
            await self._read_input(client, names)
            await self._read_outputs(client, names)
            found: Any = await client.hgetall(names.name("counts"))
            counts.update({name.decode(): int(value) for name, value in found.items()})
        keys = tuple([key async for key in self._keys(client)])
        self.verdict.end(Ending(counts, keys, await self._entries_added(client), 0, 0))
        assert self.verdict.violations == {}, self.verdict.examples
        assert self.verdict.totals["responses"] == len(self._responses)
        assert not self.verdict.unclear, "nothing was compared of what may have been given up rightly"

    async def _read_input(self, client: Redis, names: StreamNames) -> None:
        """Add the expectation from the input as it is stored."""
        stored = await entries(client, names.deltas)
        confirmed = {entry_id for lane in self.lanes if lane.names == names for entry_id in lane.confirmed}
        assert confirmed <= {entry_id for entry_id, _ in stored}, "the servers have lost what they confirmed"
        places: dict[str, list[tuple[int, str]]] = {}
        for entry_id, fields in stored:
            name, _, number = fields[TAG.encode()].decode().rpartition("/")
            places.setdefault(name, []).append((int(number), entry_id))
        for name, numbered in places.items():
            response, numbers = self._responses[name], [number for number, _ in numbered]
            assert set(numbers) == set(range(len(response.entries))), f"{name} is not all there"
            self.verdict.expect(response.stored_as(numbers))
            for _, entry_id in numbered:
                self.verdict.stored(name, names.deltas, entry_id)

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
        """Yield the keys that should not be there any more."""
        stays = {
            names.name(suffix)
            for names in self.partitions.all
            for suffix in (
                *("deltas", "assembled", "alerts", "dead-letters", "format"),
                *("counts", "counted-types", "counted-fields"),
            )
        }
        async for key in client.scan_iter(match=f"{self.partitions.prefix}:*", count=1000):
            name = key.decode()
            if name not in stays:
                yield Leftover(name, expires=await client.pttl(key) >= 0 and ":log:" not in name)


async def _left(client: Redis, names: StreamNames) -> tuple[int, int]:
    """Return the number of entries that are pending, and of those that are unread."""
    for group in await client.xinfo_groups(names.deltas):
        if group["name"] == GROUP.encode():
            return group["pending"], group["lag"]
    return 0, await client.xlen(names.deltas)  # no worker has read this partition yet


async def _is_read(client: Redis, names: StreamNames) -> bool:
    return await _left(client, names) == (0, 0)


async def _is_unread(client: Redis, names: StreamNames) -> bool:
    return (await _left(client, names))[1] > 0


async def _is_over(client: Redis, names: StreamNames) -> bool:
    """Return whether no response is open, and no text waits to be settled."""
    return not await client.zcard(names.name("open")) and not await client.zcard(names.name("waiting"))
