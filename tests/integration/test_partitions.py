"""Tests of the whole flow with several partitions: together they yield the same output as one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import demo
from deltaloom import GROUP, AssembledText, ModerationAlert, Partitions, StreamNames
from tests.streams import add, entries
from tests.waiting import wait_until
from tests.workers import running_workers, workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

STREAMS = {
    path.stem: path.read_text("utf-8").splitlines()
    for path in sorted((Path(demo.__file__).parent / "streams").glob("*.jsonl"))
}
COUNT = 4
SETTINGS: dict[str, object] = {"idle_timeout": 2, "sweep_interval": 0.2, "trim_interval": 0.5}


async def publish(redis: Redis, partitions: Partitions) -> None:
    """Publish all streams, in turn one event of each."""
    pipeline = redis.pipeline(transaction=False)
    left = {name: iter(lines) for name, lines in STREAMS.items()}
    while left:
        for name in list(left):
            event = next(left[name], None)
            if event is None:
                del left[name]
            else:
                pipeline.xadd(partitions.of(name).deltas, {"event": event, "response_id": name})
    await pipeline.execute()


async def all_finished(redis: Redis, partitions: Partitions) -> bool:
    """Return whether all entries of all partitions are processed, and no response is open or waiting."""
    for names in partitions.all:
        groups = await redis.xinfo_groups(names.deltas) if await redis.exists(names.deltas) else []
        read = [group["lag"] == group["pending"] == 0 for group in groups if group["name"] == GROUP.encode()]
        if read != [True] or await redis.exists(names.name("open"), names.name("waiting")):
            return False
    return True


async def outputs(redis: Redis, partitions: Partitions) -> dict[str, dict[str, Any]]:
    """Return the outputs by id, without times, and assert that each is in its response's partition."""
    found: dict[str, dict[str, Any]] = {}
    for names in partitions.all:
        for _, fields in await entries(redis, names.assembled):
            text = AssembledText.model_validate_json(fields[b"__data__"])
            assert text.response_id is not None
            assert partitions.of(text.response_id) == names
            assert text.id not in found
            assert text.source == partitions.prefix
            found[text.id] = text.model_dump(exclude={"started_at", "finished_at", "source"})
        for _, fields in await entries(redis, names.alerts):
            alert = ModerationAlert.model_validate_json(fields[b"__data__"])
            assert partitions.of(str(alert.response_id)) == names
            assert alert.id not in found
            # The text of an opened alert depends on the deltas in its first batch.
            found[alert.id] = alert.model_dump(include={"type", "response_id", "status", "integrity"})
    return found


@pytest.mark.timeout(180)
async def test_two_workers_with_half_of_the_partitions_each(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """Two workers with half of the partitions each give the same output as one partition."""
    results = []
    for run, count, halves in (("one", 0, [None]), ("four", COUNT, ["0-1", "2,3"])):
        partitions = Partitions(count, f"{prefix}-{run}")
        settings: dict[str, object] = {**SETTINGS, "partitions": count}
        await publish(redis, partitions)
        async with (
            running_workers(redis_url, partitions.prefix, 1, **settings, **served(halves[0])) as first,
            running_workers(redis_url, partitions.prefix, 1, **settings, **served(halves[-1])) as second,
        ):
            await wait_until(partial(all_finished, redis, partitions), 60, message="everything is finished")
            for worker, half in zip((*first, *second), ([0, 1], [2, 3]), strict=True):
                inputs = {line["stream"] for line in worker.lines() if line["event"] == "text finished"}
                assert inputs <= {StreamNames(partitions.prefix, p if count else None).deltas for p in half}
        results.append(await outputs(redis, partitions))
    one, four = results
    assert one
    assert four == one


def served(partitions: str | None) -> dict[str, object]:
    """Return the setting that makes a worker serve these partitions."""
    return {} if partitions is None else {"serve_partitions": partitions}


async def test_one_worker_with_all_partitions(redis: Redis, redis_url: str, prefix: str) -> None:
    """A single worker serves all partitions, and takes over the entries of its predecessor in each."""
    partitions = Partitions(COUNT, prefix)
    await publish(redis, partitions)
    left: Any = {}
    for names in partitions.all:
        # A previous process with the same consumer name reads entries, and dies.
        await redis.xgroup_create(names.deltas, GROUP, id="0", mkstream=True)
        left[names] = await redis.xreadgroup(GROUP, "me", {names.deltas: ">"}, count=3)
    assert all(left.values())
    async with running_workers(redis_url, prefix, 1, **SETTINGS, partitions=COUNT, consumer="me") as (
        worker,
    ):
        await wait_until(partial(all_finished, redis, partitions), 60, message="everything is finished")
        taken = {line["stream"] for line in worker.lines() if line["event"] == "entries claimed"}
        assert taken == {names.deltas for names in partitions.all}
        (started,) = [line for line in worker.lines() if line["event"] == "worker started"]
        assert started["stream"] == f"{prefix}:{{0,1,2,3}}:deltas"
    assert len(await outputs(redis, partitions)) > len(STREAMS)
    for names in partitions.all:
        assert await redis.xinfo_consumers(names.deltas, GROUP) == []


async def test_deleted_groups_are_created_again(redis: Redis, redis_url: str, prefix: str) -> None:
    """Deleted streams and groups are created again in each partition."""
    partitions = Partitions(COUNT, prefix)
    async with workers_in_process(redis_url, prefix, 1, **SETTINGS, partitions=COUNT):
        for names in partitions.all:
            await redis.delete(names.deltas)
        await publish(redis, partitions)
        await wait_until(partial(all_finished, redis, partitions), 60, message="everything is finished")
    assert len(await outputs(redis, partitions)) > len(STREAMS)


async def test_very_many_partitions(redis: Redis, redis_url: str, prefix: str) -> None:
    """A worker can serve more partitions than redis-py's default of 100 connections."""
    partitions = Partitions(150, prefix)
    async with running_workers(redis_url, prefix, 1, **SETTINGS, partitions=150) as (worker,):
        for names in partitions.all:
            await redis.xadd(names.deltas, {"event": "[DONE]"})

        async def all_counted() -> bool:
            counts = [await redis.exists(names.name("counts")) for names in partitions.all]
            return all(counts)

        await wait_until(all_counted, 60, message="every partition is read")
        assert not worker.has_logged("redis unavailable, retrying")


async def test_an_input_that_is_no_stream(redis: Redis, redis_url: str, prefix: str) -> None:
    """A partition with an input key of another type waits for its repair, while the others are served."""
    partitions = Partitions(COUNT, prefix)
    wrong, right = partitions.all[1], partitions.all[0]
    await redis.set(wrong.deltas, "x")
    async with running_workers(redis_url, prefix, 1, **SETTINGS, partitions=COUNT) as (worker,):
        event = "redis misconfigured, waiting for an operator"
        await wait_until(partial(worker.has_logged, event), 30, message="it says what is wrong")
        (error,) = [line["error"] for line in worker.lines() if line["event"] == event]
        assert wrong.deltas in error
        assert "move the key or delete it" in error
        for names in (right, wrong):
            if names is wrong:
                await redis.delete(wrong.deltas)
            await add(redis, names.deltas, {"event": "{}"})
            letters = partial(redis.xlen, names.dead_letters)
            await wait_until(letters, 30, message=f"{names.deltas} is read")
        assert "Traceback" not in worker.log.read_text()
