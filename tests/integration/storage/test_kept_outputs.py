"""Tests of `retention_group`: outputs stay until the archive has them, within their budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from service.apps.kept_outputs import KeptOutputs
from service.keys import Keys
from service.storage.kind_retention import KindRetention
from tests.integration.storage.test_output_budget import fill
from tests.streams import entries, read_as
from tests.waiting import wait_until
from tests.workers import workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.bench import Bench

HOUR_MS = 3_600_000
GROUP = "archive"


async def acknowledge(redis: Redis, stream: str, count: int) -> None:
    """Read entries of a stream in the group, and acknowledge them."""
    read = await read_as(redis, stream, GROUP, "one", count)
    await redis.xack(stream, GROUP, *(entry_id for entry_id, _ in read))


async def test_outputs_stay_until_the_group_has_them(bench: Bench) -> None:
    """Keep what is unread or pending, of texts, alerts and deliveries alone, and trim it after that."""
    redis, names, group = bench.redis, bench.names, bench.consumer().group
    await group.ensure()
    for stream in (names.assembled, names.alerts, names.deliveries, names.dead_letters):
        await fill(redis, stream, 300, minutes=600, until=300)
    for stream in (names.assembled, names.alerts):
        await redis.xgroup_create(stream, GROUP, id="0")
        await redis.xgroup_create(stream, f"{GROUP}-2", id="0")
    await acknowledge(redis, names.assembled, 300)
    await acknowledge(redis, names.alerts, 100)
    await read_as(redis, names.alerts, GROUP, "one", 100)
    kept = await group.trim_for(GROUP, HOUR_MS, None)
    left = [
        len(await entries(redis, stream))
        for stream in (names.assembled, names.alerts, names.deliveries, names.dead_letters)
    ]
    assert left == [0, 200, 300, 0], "deliveries have no group yet, so all of them are needed"
    assert (kept.lost, kept.bytes) == (0, 0)
    assert kept.behind > 5 * 3600
    await group.trim(HOUR_MS)
    assert len(await entries(redis, names.deliveries)) == 0


async def test_kinds_of_texts_stay_until_the_group_has_them(bench: Bench) -> None:
    """Remove a kind of text early only after the archive has it."""
    redis, names = bench.redis, bench.names
    retention = KindRetention(redis, Keys(names), {"reasoning": 60}, 3600)
    for number in range(4):
        fields: Any = {"__data__": "{}", "kind": "reasoning", "response_id": "r"}
        await redis.xadd(names.assembled, fields, id=f"{number + 1}-0")
    assert await retention.remove_aged(GROUP) == 0
    await redis.xgroup_create(names.assembled, GROUP, id="0")
    await acknowledge(redis, names.assembled, 2)
    await read_as(redis, names.assembled, GROUP, "one", 1)
    assert await retention.remove_aged(GROUP) == 2
    assert await retention.remove_aged(GROUP) == 0
    assert await retention.remove_aged() == 2


async def test_beyond_the_budget_nobody_is_waited_for(bench: Bench) -> None:
    """Warn loudly at half of the budget, once for many trims; beyond it, trim by age, and log the loss."""
    redis, names, group = bench.redis, bench.names, bench.consumer().group
    await group.ensure()
    await fill(redis, names.assembled, 1000, minutes=600, until=300)
    await redis.xgroup_create(names.assembled, GROUP, id="0")
    size = await redis.memory_usage(names.assembled, samples=0) or 0

    async def trimmed(budget: int, times: int = 1) -> list[dict[str, Any]]:
        outputs = KeptOutputs(group, GROUP, HOUR_MS, budget)
        with capture_logs() as lines:
            for _ in range(times):
                await outputs.trim()
        return [dict(line) for line in lines]

    assert await trimmed(4 * size) == []
    (warning,) = await trimmed(size * 3 // 2, times=3)
    assert warning["event"] == "outputs wait for their group and fill half of their budget"
    assert (warning["log_level"], warning["group"]) == ("error", GROUP)
    assert warning["behind_seconds"] > 5 * 3600
    assert len(await entries(redis, names.assembled)) == 1000
    lost, _ = await trimmed(size // 2)
    assert (lost["event"], lost["entries"]) == ("outputs trimmed before their group had them", 1000)
    assert await entries(redis, names.assembled) == []


async def test_a_worker_keeps_outputs_for_the_archive(redis: Redis, redis_url: str, prefix: str) -> None:
    """Trim by age behind the archive's group, while the worker runs."""
    old = f"{prefix}:assembled"
    await fill(redis, old, 200, minutes=600, until=300)
    await redis.xgroup_create(old, GROUP, id="0")
    await redis.xgroup_create(f"{prefix}:alerts", GROUP, id="0", mkstream=True)
    await fill(redis, f"{prefix}:dead-letters", 200, minutes=600, until=300)
    settings: dict[str, Any] = {"retention": 60, "trim_interval": 0.05, "retention_group": GROUP}
    async with workers_in_process(redis_url, prefix, **settings):

        async def is_trimmed(stream: str) -> bool:
            return not await entries(redis, stream)

        await wait_until(lambda: is_trimmed(f"{prefix}:dead-letters"))
        assert len(await entries(redis, old)) == 200
        await acknowledge(redis, old, 200)
        await wait_until(lambda: is_trimmed(old))
