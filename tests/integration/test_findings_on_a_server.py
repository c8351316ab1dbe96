"""Test findings of `deltaloom check` and the work left for a drain, on a real server."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from deltaloom import GROUP, Partitions
from service.cli import finding_table as findings
from service.cli.worker_findings import workers
from service.keys import LEFT_OUT, Keys
from service.settings import Settings
from service.storage.draining import left_over
from tests.streams import add, read_as


async def test_the_memory_of_too_many_streams_is_not_measured(redis: Redis, prefix: str) -> None:
    """Ask the server nothing about the memory of more partitions than a check may take time for."""
    assert len(await findings.streams(redis, Partitions(2, prefix))) == 1
    assert await findings.streams(redis, Partitions(65, prefix)) == []


async def test_scripts_are_not_tried_without_handlers(redis: Redis, prefix: str) -> None:
    """Say why the commands of a worker were not tried, instead of failing with the finding about handlers."""
    finding = await findings.scripts(redis, Settings(prefix=prefix, handlers="nix"))
    assert (finding.state, finding.says) == ("warn", "not tried, because of the handlers")


async def test_only_left_out_fields_are_listed(redis: Redis, prefix: str) -> None:
    """Sum the counts of fields over partitions, and leave out the counts of other things."""
    partitions = Partitions(2, prefix)
    for names in partitions.all:
        await redis.hset(Keys(names).counts, mapping={f"{LEFT_OUT}some.type:item_id": 2, "late": 5})
    finding = await findings.left_out(redis, partitions)
    assert (finding.state, finding.says) == (
        "warn",
        "fields of events that cannot be used: some.type item_id (4)",
    )


async def test_entries_nobody_has_read_are_left(redis: Redis, prefix: str) -> None:
    """Count the entries of an input without a group, as a first worker would read them."""
    partitions = Partitions(0, prefix)
    assert (await left_over(redis, partitions)).unread == 0
    await add(redis, partitions.all[0].deltas, {"event": "{}"})
    left = await left_over(redis, partitions)
    assert (left.unread, left.pending, left.reading) == (1, 0, 0)


async def test_unread_entries_behind_deleted_ones_cannot_be_counted(redis: Redis, prefix: str) -> None:
    """Return None if the server has lost count, but 0 if it can be seen that nothing is unread."""
    partitions = Partitions(0, prefix)
    (names,) = partitions.all
    ids = [await add(redis, names.deltas, {"event": "{}"}) for _ in range(4)]
    await redis.xgroup_create(names.deltas, GROUP, id=ids[0])
    await redis.xdel(names.deltas, ids[2])
    assert (await left_over(redis, partitions)).unread is None
    await redis.xgroup_setid(names.deltas, GROUP, id=ids[3])
    assert (await left_over(redis, partitions)).unread == 0


async def test_undelivered_alerts_that_cannot_be_counted(redis: Redis, prefix: str) -> None:
    """Return None for the alerts if the server has lost count of those of one destination."""
    partitions = Partitions(0, prefix)
    (names,) = partitions.all
    ids = [await add(redis, names.alerts, {"a": "b"}) for _ in range(4)]
    await redis.xgroup_create(names.alerts, "relay:counted", id="0")
    assert (await left_over(redis, partitions)).alerts == 4
    await redis.xgroup_create(names.alerts, "relay:lost", id=ids[0])
    await redis.xdel(names.alerts, ids[2])
    assert (await left_over(redis, partitions)).alerts is None


async def test_an_input_that_is_no_stream_is_an_error(redis: Redis, prefix: str) -> None:
    """Raise the server's error for a key of another type, and report it as a failure of the check."""
    partitions = Partitions(0, prefix)
    await redis.set(partitions.all[0].deltas, "x", ex=60)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await left_over(redis, partitions)
    (finding,) = await workers(redis, partitions)
    assert (finding.what, finding.state) == ("workers", "fail")


async def test_a_server_that_is_away_is_reported_once(prefix: str) -> None:
    """Report that no partition can be served, and add no other warnings with the same cause."""
    partitions = Partitions(2, prefix)
    async with Redis.from_url("redis://127.0.0.1:1", retry=Retry(NoBackoff(), 0)) as away:
        (finding,) = await workers(away, partitions)
        assert (finding.state, finding.says) == (
            "fail",
            "no partition can be served: their servers do not answer",
        )
        assert await findings.streams(away, partitions) == []
        assert await findings.drain(away, partitions) == []
        assert (await findings.left_out(away, partitions)).state == "ok"
        assert (await findings.state_format(away, partitions)).state == "ok"


async def test_an_old_entry_that_was_delivered_once_crashes_nobody(redis: Redis, prefix: str) -> None:
    """Report an old pending entry, but suspect it of crashes only after several deliveries."""
    partitions = Partitions(0, prefix)
    stream = partitions.all[0].deltas
    await add(redis, stream, {"event": "{}"}, "1-0")
    await redis.xgroup_create(stream, GROUP, id="0")
    await read_as(redis, stream, GROUP, "first", 1)
    *_, once = await workers(redis, partitions)
    assert (once.what, once.state) == ("oldest entry", "warn")
    assert once.says.endswith("was delivered 1 time, last to first")
    await redis.xclaim(stream, GROUP, "second", 0, ["1-0"])
    *_, twice = await workers(redis, partitions)
    assert "was delivered 2 times, last to second: does it crash workers?" in twice.says
