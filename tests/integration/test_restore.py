"""Test that an older backup of the server can be restored, and the input since then published again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from deltaloom import StreamNames
from tests.mortal import MortalServer
from tests.waiting import wait_until
from tests.workers import alerts, dead_letters, running_workers, texts, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PREFIX = "deltaloom"
NAMES = StreamNames(PREFIX)
WORDS = ("I'm ", "sorry", ".")
PART = {"item_id": "m", "output_index": 0, "content_index": 0}

Entry = tuple[str, dict[str, Any]]


def begun(*numbers: int) -> list[Entry]:
    """Return the first two deltas of each response."""
    return [
        (
            f"resp_{n}",
            {"type": "response.refusal.delta", "sequence_number": k, "delta": WORDS[k - 1], **PART},
        )
        for k in (1, 2)
        for n in numbers
    ]


def ended(*numbers: int) -> list[Entry]:
    """Return the last delta and the end of each response."""
    events: list[dict[str, Any]] = [
        {"type": "response.refusal.delta", "sequence_number": 3, "delta": WORDS[2], **PART},
        {"type": "response.refusal.done", "sequence_number": 4, "refusal": "".join(WORDS), **PART},
        {"type": "response.completed", "sequence_number": 5, "response": {}},
    ]
    return [(f"resp_{n}", event) for event in events for n in numbers]


BEFORE = [*begun(*range(20)), *ended(*range(10))]
"""The input before the backup: ten whole responses, and ten that have begun."""
AFTER = [*ended(*range(10, 20)), *begun(*range(20, 30)), *ended(*range(20, 30))]
"""The input after the backup: the ends of the latter, and ten more responses."""


async def publish(redis: Redis, entries: list[Entry]) -> None:
    """Publish events, and wait until all that can be finished is."""
    pipeline = redis.pipeline(transaction=False)
    for response, event in entries:
        fields: Any = {"event": json.dumps(event), "response_id": response}
        pipeline.xadd(NAMES.deltas, fields)
    await pipeline.execute()
    await wait_until_settled(redis, PREFIX)


async def back_up(redis: Redis, folder: Path, copy: Path) -> None:
    """Copy a snapshot of the running server."""
    await redis.bgsave()

    async def saved() -> bool:
        return not (await redis.info("persistence"))["rdb_bgsave_in_progress"]

    await wait_until(saved, 30, message="the snapshot is written")
    shutil.copy(folder / "dump.rdb", copy)


async def restore(server: MortalServer, folder: Path, copy: Path) -> None:
    """Stop the server, and start it with the copy, as docs/operations.md describes it."""
    await server.kill()
    shutil.rmtree(folder / "appendonlydir")
    shutil.copy(copy, folder / "dump.rdb")
    await server.start("--appendonly", "no")
    async with Redis.from_url(server.url) as redis:
        await redis.config_set("appendonly", "yes")

        async def rewritten() -> bool:
            found = await redis.info("persistence")
            return found["aof_enabled"] == 1 and not found["aof_rewrite_in_progress"]

        await wait_until(rewritten, 30, message="the append-only file has all data")


async def read_as_archive(redis: Redis) -> Counter[str]:
    """Read and acknowledge new texts as a subscriber; return their ids."""
    reply: Any = await redis.xreadgroup("archive", "one", {NAMES.assembled: ">"}, count=1000)
    found = [entry for _, entries in reply for entry in entries]
    if found:
        await redis.xack(NAMES.assembled, "archive", *(entry_id for entry_id, _ in found))
    return Counter(json.loads(fields[b"__data__"])["id"] for _, fields in found)


async def outputs(redis: Redis) -> tuple[Counter[tuple[Any, ...]], Counter[str]]:
    """Return the texts and the ids of the alerts."""
    assert await dead_letters(redis, PREFIX) == []
    return (
        Counter(
            (each.id, each.text, each.status, each.integrity, each.delta_count)
            for each in await texts(redis, PREFIX)
        ),
        Counter(each.id for each in await alerts(redis, PREFIX)),
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[MortalServer]:
    """Run a server with an append-only file for one test alone."""
    made = await MortalServer(tmp_path).start()
    yield made
    await made.kill()


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [False, True], ids=["since the backup", "all"])
async def test_input_since_a_backup_is_published_again(
    server: MortalServer, tmp_path: Path, *, overlap: bool
) -> None:
    """Give the same texts and alerts once, however much is published again, and though a worker ran on.

    A subscriber gets those since the backup twice, with the same ids.
    """
    copy = tmp_path / "backup.rdb"
    async with running_workers(server.url, PREFIX), Redis.from_url(server.url) as redis:
        await redis.xgroup_create(NAMES.assembled, "archive", id="0", mkstream=True)
        await publish(redis, BEFORE)
        assert sum((await read_as_archive(redis)).values()) == 10
        await back_up(redis, tmp_path, copy)
        await publish(redis, AFTER)
        since = await read_as_archive(redis)
        wanted = await outputs(redis)
        assert {len(each) for each in wanted} == {30, 60}

        await restore(server, tmp_path, copy)
        await redis.connection_pool.disconnect()
        restored, _ = await outputs(redis)
        assert len(restored) == 10, "the state of the backup"
        await publish(redis, [*BEFORE, *AFTER] if overlap else AFTER)
        assert await outputs(redis) == wanted
        assert await read_as_archive(redis) == since, "the texts since the backup come again"


@pytest.mark.slow
async def test_an_append_only_server_ignores_a_snapshot(server: MortalServer, tmp_path: Path) -> None:
    """Start empty with `appendonly yes` and a snapshot alone, so that the page warns of it."""
    async with Redis.from_url(server.url) as redis:
        await redis.set("kept", "1")
        await back_up(redis, tmp_path, tmp_path / "backup.rdb")
    await server.kill()
    shutil.rmtree(tmp_path / "appendonlydir")
    try:
        await server.start()
    except (AssertionError, RedisError):  # a later server may refuse to start
        return
    async with Redis.from_url(server.url) as redis:
        assert await redis.get("kept") is None
