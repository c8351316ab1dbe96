"""Tests of the budget of the outputs: what every group has read goes first, what one has not read never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service.settings import Settings
from service.storage.output_budget import OutputBudget
from tests.streams import read_as
from tests.waiting import wait_until
from tests.workers import workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.bench import Bench

MINUTE_MS = 60_000
KILO = "x" * 1000


async def fill(redis: Redis, stream: str, count: int, *, minutes: float, until: float = 0) -> list[str]:
    """Add entries of 1 kB, spread evenly over the time from `minutes` to `until` minutes ago."""
    now_ms = (await redis.time())[0] * 1000
    begin_ms, end_ms = now_ms - minutes * MINUTE_MS, now_ms - until * MINUTE_MS
    ids = [f"{round(begin_ms + (end_ms - begin_ms) * n / count)}-{n}" for n in range(count)]
    async with redis.pipeline(transaction=False) as pipeline:
        for each in ids:
            pipeline.xadd(stream, {"__data__": KILO}, id=each)
        await pipeline.execute()
    return ids


async def bytes_of(redis: Redis, stream: str) -> int:
    """Return the bytes of a stream, from all of its nodes."""
    return await redis.memory_usage(stream, samples=0) or 0


async def first_of(redis: Redis, stream: str) -> int:
    """Return the milliseconds of a stream's first entry."""
    found: Any = await redis.xrange(stream, count=1)
    ((entry, _),) = found
    return int(entry.split(b"-")[0])


async def test_the_oldest_of_all_outputs_goes_first(bench: Bench) -> None:
    """Otherwise a flood of texts would remove alerts that are younger than them."""
    redis, names = bench.redis, bench.names
    await fill(redis, names.assembled, 3000, minutes=600)
    await fill(redis, names.alerts, 300, minutes=600)
    await fill(redis, names.dead_letters, 100, minutes=30)
    budget = 2_000_000
    assert await OutputBudget(redis, names, budget).trim() is None
    kept = [await bytes_of(redis, each) for each in (names.assembled, names.alerts)]
    left = sum(kept) + await bytes_of(redis, names.dead_letters)
    assert 0.8 * budget < left <= 1.02 * budget
    assert await redis.xlen(names.dead_letters) == 100
    firsts = [await first_of(redis, each) for each in (names.assembled, names.alerts)]
    assert abs(firsts[0] - firsts[1]) < 60 * MINUTE_MS
    assert await OutputBudget(redis, names, budget).trim() is None
    assert [await first_of(redis, each) for each in (names.assembled, names.alerts)] == firsts


async def test_what_a_group_has_not_acknowledged_stays(bench: Bench) -> None:
    """A slow subscriber loses nothing because of the budget, and is named."""
    redis, names = bench.redis, bench.names
    await fill(redis, names.assembled, 1000, minutes=60)
    await fill(redis, names.alerts, 1500, minutes=60)
    read: list[Any] = []
    for group in ("archive", "slow"):
        await redis.xgroup_create(names.assembled, group, id="0")
        read = await read_as(redis, names.assembled, group, "one", 1000 if group == "archive" else 500)
        await redis.xack(
            names.assembled, group, *[entry for entry, _ in read][: 1000 if group == "archive" else 400]
        )
    needed = read[400][0]
    over = await OutputBudget(redis, names, 100_000).trim()
    assert over is not None
    assert (over.stream, over.group) == (names.assembled, "slow")
    assert 500_000 < over.stream_bytes <= over.total_bytes < 1_000_000
    assert await redis.xlen(names.alerts) < 100, "no group holds them"
    assert 600 <= await redis.xlen(names.assembled) < 700
    assert await redis.xrange(names.assembled, needed, needed)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 300),
    read=st.integers(0, 300),
    done=st.integers(0, 300),
    budget=st.integers(1, 400_000),
)
async def test_no_unread_entry_is_removed(
    bench: Bench, count: int, read: int, done: int, budget: int
) -> None:
    """Whatever the budget is, a group finds all that it has not acknowledged."""
    redis, stream = bench.redis, bench.names.assembled
    await redis.delete(stream)
    ids = await fill(redis, stream, count, minutes=10)
    await redis.xgroup_create(stream, "slow", id="0")
    got = await read_as(redis, stream, "slow", "one", read) if read else []
    if acknowledged := [entry for entry, _ in got][:done]:
        await redis.xack(stream, "slow", *acknowledged)
    await OutputBudget(redis, bench.names, budget).trim()
    found: Any = await redis.xrange(stream)
    left = {entry.decode() for entry, _ in found}
    assert left >= set(ids[len(acknowledged) :])


@pytest.mark.parametrize("partitions", [0, 2])
async def test_a_worker_keeps_the_budget_and_warns_once(
    redis: Redis, redis_url: str, prefix: str, partitions: int
) -> None:
    """Operators learn once that a group keeps the outputs above their budget, and when that is over."""
    changed: dict[str, Any] = {
        "retention_bytes": 1 << 20,
        "trim_interval": 0.05,
        "retention": 60,
        "partitions": partitions,
    }
    names = Settings(prefix=prefix, **changed).names.all[0]
    await fill(redis, names.assembled, 2000, minutes=0.5)
    await redis.xgroup_create(names.assembled, "slow", id="0")
    with capture_logs() as lines:

        def logged(event: str) -> list[dict[str, object]]:
            return [dict(line) for line in lines if line["event"] == event]

        async with workers_in_process(redis_url, prefix, **changed):
            await wait_until(lambda: logged("outputs over budget"))
            await read_as(redis, names.assembled, "slow", "one", 2000)
            entries: Any = await redis.xrange(names.assembled)
            await redis.xack(names.assembled, "slow", *[entry for entry, _ in entries])
            await wait_until(lambda: logged("outputs within budget again"), 30)
    (warning,) = logged("outputs over budget")
    share = (1 << 20) // max(partitions, 1)
    assert (warning["output"], warning["group"], warning["budget"]) == (names.assembled, "slow", share)
    assert warning["log_level"] == "warning"
    assert await bytes_of(redis, names.assembled) < 1.05 * share
