"""Tests of the looks at all partitions of a server: they miss nothing that a periodic step has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deltaloom import GROUP, Partitions
from service.keys import Keys
from service.storage import overview as module
from service.storage.overview import Overview
from service.storage.server_clock import ServerClock
from tests.streams import add

if TYPE_CHECKING:
    from redis.asyncio import Redis

COUNT = 5


@pytest.fixture
def partitions(prefix: str) -> list[Keys]:
    """Return the keys of some partitions."""
    return [Keys(names) for names in Partitions(COUNT, prefix).all]


def overview_of(redis: Redis, partitions: list[Keys]) -> Overview:
    """Return an overview of these partitions."""
    overview = Overview(redis, ServerClock())
    for keys in partitions:
        overview.add(keys)
    return overview


async def commands(redis: Redis, name: str) -> int:
    """Return how often the server has run a command, in scripts too."""
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"])


@pytest.mark.parametrize("kind", ["open", "waiting"])
async def test_partitions_with_open_or_waiting_responses(
    redis: Redis, partitions: list[Keys], kind: str
) -> None:
    """A look sees each change since the last one: responses that come, and responses that go."""
    overview = overview_of(redis, partitions)
    for unsettled in (set(), {1}, {1}, {1, 3}, {0, 4}, set(range(COUNT)), {2}, set(), {0}):
        for n, keys in enumerate(partitions):
            await redis.delete(getattr(keys, kind))
            if n in unsettled:
                await redis.zadd(getattr(keys, kind), {"response:a": 1})
        assert await overview.unsettled() == unsettled
    for keys in partitions:
        await redis.delete(getattr(keys, kind))


async def test_what_is_unchanged_costs_little(redis: Redis, partitions: list[Keys]) -> None:
    """A look costs one EXISTS, and another one for each partition that had responses."""
    overview = overview_of(redis, partitions)
    await redis.zadd(partitions[2].open, {"response:a": 1})
    await overview.unsettled()
    before = await commands(redis, "exists")
    for _ in range(10):
        await overview.unsettled()
    assert await commands(redis, "exists") - before == 20
    await redis.delete(partitions[2].open)


async def test_a_look_sets_the_clock(redis: Redis, partitions: list[Keys]) -> None:
    """Otherwise the estimated time of a server would drift away while nothing happens."""
    clock = ServerClock()
    clock.observe(0)
    overview = Overview(redis, clock)
    overview.add(partitions[0])
    await overview.unsettled()
    seconds, _ = await redis.time()
    assert abs(clock.now_ms / 1000 - seconds) < 30


async def test_groups(redis: Redis, partitions: list[Keys], monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams without the worker's group, and other keys, are unknown; others have their pending entries."""
    monkeypatch.setattr(module, "_STREAMS_AT_ONCE", 2)
    missing, wrong, ungrouped, quiet, busy = partitions
    await redis.set(wrong.names.deltas, "x", ex=60)
    for keys in (ungrouped, quiet, busy):
        group = "audit" if keys is ungrouped else GROUP
        await redis.xgroup_create(keys.names.deltas, group, id="0", mkstream=True)
    for _ in range(3):
        await add(redis, busy.names.deltas, {"event": "{}"})
    await redis.xreadgroup(GROUP, "one", {busy.names.deltas: ">"}, count=2)
    found = await overview_of(redis, partitions).groups()
    assert [None if each is None else each.pending for each in found] == [None, None, None, 0, 2]
    assert not await redis.exists(missing.names.deltas)


async def test_positions_change_with_each_group(redis: Redis, partitions: list[Keys]) -> None:
    """Positions change whenever a group may need fewer entries, so that the input is trimmed."""
    keys = partitions[0]
    stream, overview = keys.names.deltas, overview_of(redis, [keys])
    await redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
    ids = [await add(redis, stream, {"event": "{}"}) for _ in range(4)]
    seen = [await overview.groups()]

    async def changed() -> bool:
        seen.append(await overview.groups())
        return seen[-1] != seen[-2]

    assert not await changed()
    await redis.xreadgroup(GROUP, "one", {stream: ">"}, count=2)
    assert await changed()
    await redis.xack(stream, GROUP, ids[0])
    assert await changed()
    await redis.xgroup_create(stream, "audit", id="0")
    assert await changed()
    await redis.xgroup_setid(stream, "audit", ids[1])
    assert await changed()
    await add(redis, stream, {"event": "{}"})
    assert not await changed()
    await redis.xgroup_destroy(stream, "audit")
    assert await changed()
