"""Tests of the periodic rounds of a worker with many partitions: they cost little, and miss nothing."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from deltaloom import GROUP, Partitions, StreamNames
from service.apps.rounds import outputs_interval
from service.settings import Settings
from service.storage.client.limited_pool import AT_ONCE
from tests.bench import KEEPALIVE, delta
from tests.nodes import Node
from tests.streams import add
from tests.waiting import wait_until
from tests.workers import texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

COUNT = 64

SCALE = 5
FAST: dict[str, Any] = {
    "partitions": COUNT,
    "sweep_interval": 1 / SCALE,
    "claim_time": 15 / SCALE,
    "trim_interval": 5 / SCALE,
    "block_ms": 500,
}
"""The default intervals, each divided by `SCALE`."""

LEFT = json.dumps(delta(1, "left"))
"""The event of an entry that a dead worker leaves."""

SKIPPED = "redis misconfigured, periodic task skipped"

SWEEPS = 30
"""Rounds of sweeps in which commands are counted."""

COMMANDS_A_SWEEP = 60
"""Maximum commands per sweep while nothing happens, of all 64 partitions, without those that read."""


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """Run a server for one test alone, since it counts commands and connections."""
    node = Node(tmp_path / "server", {"save": ""})
    await node.start()
    try:
        yield node
    finally:
        await node.kill()


async def calls(node: Node) -> Counter[str]:
    """Return how often the server has run each command, in scripts too."""
    stats = await node.ask("INFO", "commandstats")
    return Counter({name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()})


async def commands_during(node: Node, command: str, count: int) -> Counter[str]:
    """Wait for some calls of a command; return the calls of all commands meanwhile, without reads."""
    before, during = await calls(node), Counter[str]()

    async def called() -> bool:
        nonlocal during
        during = await calls(node) - before
        return during[command] >= count

    await wait_until(called, 60, message=f"{count} calls of {command}", interval=0.2)
    for name in ("xreadgroup", "info", "client|setinfo", "hello"):
        del during[name]
    return during


async def other_connections(node: Node) -> int:
    """Return the number of connections that do not read."""
    clients = await node.ask("CLIENT LIST", "TYPE", "normal")
    return sum(each["cmd"] not in {"xreadgroup", "client|list"} for each in clients)


@pytest.mark.timeout(180)
async def test_an_idle_worker_asks_little(node: Node) -> None:
    """64 partitions without traffic cost the server few commands, and few connections."""
    async with workers_in_process(node.url, "deltaloom", 1, **FAST), Redis.from_url(node.url) as redis:
        await wait_until(partial(begun_all, node, COUNT), 60, message="all partitions are served")
        await commands_during(node, "time", 2 * SCALE)  # until all steps have run once
        during = await commands_during(node, "time", SWEEPS)  # each round of sweeps looks at the clock once
        assert sum(during.values()) <= COMMANDS_A_SWEEP * during["time"], during
        assert await other_connections(node) <= AT_ONCE + 1  # and that for scripts

        # One open response costs the sweeps of its partition alone.
        names = Partitions(COUNT, "deltaloom").all[3]
        await redis.zadd(names.name("open"), {"response:a": 1e15})
        await commands_during(node, "zcard", 2)  # until it is found, which takes a look at each partition
        during = await commands_during(node, "exists", 2 * SWEEPS)  # a look calls it twice
        sweeps = during["exists"] // 2
        assert sweeps <= during["zcard"] <= 2 * (sweeps + 2), during  # a sweep calls it twice
        assert sum(during.values()) <= (COMMANDS_A_SWEEP + 30) * sweeps, during


async def test_many_partitions_at_work_share_few_connections(node: Node) -> None:
    """Batches of all partitions at the same time open no further connections."""
    async with workers_in_process(node.url, "deltaloom", 1, **FAST), Redis.from_url(node.url) as redis:
        pipeline = redis.pipeline(transaction=False)
        partitions = Partitions(COUNT, "deltaloom").all
        for names in partitions * 3:
            pipeline.xadd(names.deltas, {"event": "{}", "response_id": "a"})
        await pipeline.execute()

        async def all_read() -> bool:
            return all([await redis.xlen(names.dead_letters) == 3 for names in partitions])

        await wait_until(all_read, 60, message="all is processed")
        assert await other_connections(node) <= AT_ONCE + 2  # and those for scripts, and of this test


async def test_a_quiet_partition_is_not_forgotten(redis: Redis, redis_url: str, prefix: str) -> None:
    """A worker that reads nothing in a partition still does what other workers have left there."""
    first, second = Partitions(2, prefix).all
    settings = {**FAST, "partitions": 2, "idle_timeout": 1, "claim_time": 1}
    async with workers_in_process(redis_url, prefix, 1, **settings):
        for names in (first, second):
            await wait_until(partial(_is_read, redis, names), message="the partition is served")
        await _leave_pending(redis, second)

        async def claimed_and_given_up() -> list[str]:
            return [text.text for text in await texts(redis, second.name("")[:-1])]

        left = await wait_until(claimed_and_given_up, message="the entry of a dead worker is processed")
        assert left == ["left"]
        assert (await redis.xpending(second.deltas, GROUP))["pending"] == 0


async def _is_read(redis: Redis, names: StreamNames) -> bool:
    return bool(await redis.exists(names.deltas)) and bool(await redis.xinfo_groups(names.deltas))


async def _leave_pending(redis: Redis, names: StreamNames) -> None:
    """Add an entry, and give it to another consumer, which never processes it."""
    async with redis.pipeline(transaction=True) as pipeline:  # so that the worker cannot read it before
        pipeline.xadd(names.deltas, {"event": LEFT, "response_id": "resp_1"})
        pipeline.xreadgroup(GROUP, "dead", {names.deltas: ">"})
        await pipeline.execute()


async def test_the_input_is_trimmed_when_another_group_is_done(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """An idle worker trims the entries that another group acknowledges late."""
    names = StreamNames(prefix)
    await redis.xgroup_create(names.deltas, "audit", id="0", mkstream=True)
    for _ in range(300):
        await add(redis, names.deltas, {"event": json.dumps(KEEPALIVE)})
    async with workers_in_process(redis_url, prefix, 1, trim_interval=0.2, sweep_interval=60):
        await wait_until(lambda: redis.exists(names.name("counts")), message="the worker reads")
        await wait_until_settled(redis, prefix)
        await wait_for_trims(redis, 3)
        assert await redis.xlen(names.deltas) == 300
        read: Any = await redis.xreadgroup("audit", "a", {names.deltas: ">"}, count=250)
        ((_, entries),) = read
        await redis.xack(names.deltas, "audit", *(entry_id for entry_id, _ in entries))

        async def trimmed() -> bool:
            return await redis.xlen(names.deltas) < 150

        await wait_until(trimmed, message="the input is trimmed")


async def wait_for_trims(redis: Redis, count: int) -> None:
    """Wait until a worker has looked at the groups this often."""

    async def looks() -> int:
        stats = await redis.info("commandstats")
        return int(stats["cmdstat_xinfo|groups"]["calls"])

    before = await looks()

    async def looked() -> bool:
        return await looks() >= before + count

    await wait_until(looked, message="the worker has looked at the groups")


@pytest.mark.parametrize("trouble", ["NOPERM", "WRONGTYPE"])
async def test_a_broken_partition_costs_only_itself(node: Node, trouble: str) -> None:
    """A look or step that fails because of one partition holds up no other, and is logged."""
    first, broken, _ = Partitions(3, "deltaloom").all
    settings = {**FAST, "partitions": 3, "idle_timeout": 1}
    await node.ask("ACL", "SETUSER", "loom", "on", "nopass", "+@all", "~*")
    url = f"redis://loom:any@{node.address}"
    with capture_logs() as lines:
        async with workers_in_process(url, "deltaloom", 1, **settings), Redis.from_url(node.url) as redis:
            for names in Partitions(3, "deltaloom").all:
                await wait_until(partial(_is_read, redis, names), message="the partition is served")
            await wait_until(partial(begun_all, node, 3), message="all steps have run")
            if trouble == "NOPERM":
                allowed = [f"~deltaloom:{{{n}}}:*" for n in (0, 2)]
                await node.ask("ACL", "SETUSER", "loom", "resetkeys", *allowed)
            else:
                await redis.set(broken.name("open"), "x")

            def complains() -> bool:
                wanted = {"sweep", "reclaim", "trim"} if trouble == "NOPERM" else {"sweep"}
                found = [line for line in lines if line["event"] == SKIPPED]
                return {line["task"] for line in found} >= wanted

            await wait_until(complains, message="the steps of the broken partition log their errors")
            await _is_given_up(redis, first)
            await node.ask("ACL", "SETUSER", "loom", "allkeys")
            if trouble == "WRONGTYPE":
                await redis.delete(broken.name("open"))
            await _is_given_up(redis, broken)
    complaints = Counter(line["task"] for line in lines if line["event"] == SKIPPED)
    assert set(complaints.values()) == {1}, "each step logs its error once"
    assert not [line for line in lines if "exc_info" in line or "exception" in line]


async def begun_all(node: Node, partitions: int) -> bool:
    """Return whether all partitions have looked at their consumers: at the start, and in a first step."""
    return (await calls(node))["xinfo|consumers"] >= 2 * partitions


async def _is_given_up(redis: Redis, names: StreamNames) -> None:
    """Publish a response without an end, and wait until its text is written."""
    event = json.dumps(delta(1, "no end"))
    await add(redis, names.deltas, {"event": event, "response_id": "resp_1"})

    async def written() -> bool:
        return bool(await texts(redis, names.name("")[:-1]))

    await wait_until(written, 60, message=f"the response of {names.deltas} is given up")


@pytest.mark.parametrize(
    ("settings", "interval"),
    [
        ({}, 60),
        ({"retention": 60}, 5),
        ({"retention": 1000}, 10),
        ({"kind_retention": "reasoning=3000,refusal=2000"}, 20),
        ({"trim_interval": 600}, 600),
    ],
)
def test_outputs_are_trimmed_soon_after_their_time(settings: dict[str, Any], interval: float) -> None:
    """The outputs are trimmed more rarely than the input, but soon after the retention of an entry."""
    assert outputs_interval(Settings(**settings)) == pytest.approx(interval)
