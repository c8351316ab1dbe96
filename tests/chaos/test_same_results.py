"""Test that any number of workers, with and without kills, gives the same results."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from chaos.generator import MAX_ARRAY_LENGTH, MAX_EVENT_BYTES, make_response
from deltaloom import AssembledText, StreamNames
from tests.waiting import wait_until
from tests.workers import settled, texts

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

from chaos.processes import Workers, WorkerSlot, worker_command

RESPONSES = 250


async def publish(redis: Redis, prefix: str) -> None:
    """Publish many responses with interleaved entries."""
    order = random.Random("same results")
    waiting = [list(make_response("same", 0, n).entries)[::-1] for n in range(RESPONSES)]
    pipeline = redis.pipeline(transaction=False)
    while waiting:
        entries = order.choice(waiting[:50])
        fields: dict[Any, Any] = dict(entries.pop().fields)
        pipeline.xadd(StreamNames(prefix).deltas, fields)
        if not entries:
            waiting.remove(entries)
    await pipeline.execute()


def results(got: list[AssembledText]) -> dict[str, tuple[object, ...]]:
    """Return the fields that must be equal, by text id."""
    assert len({text.id for text in got}) == len(got), "a text came twice"
    return {
        text.id: (
            text.response_id,
            text.item_id,
            text.kind,
            text.text,
            text.status,
            text.reason,
            text.integrity,
        )
        for text in got
    }


async def run(
    redis: Redis, url: str, prefix: str, folder: Path, count: int, *, kills: bool
) -> dict[str, tuple[object, ...]]:
    """Process the input with `count` workers. With `kills`, a worker is killed and replaced six times."""
    environment = {
        "REDIS_URL": url,
        "DELTALOOM_PREFIX": prefix,
        "DELTALOOM_CLAIM_TIME": "1",
        "DELTALOOM_IDLE_TIMEOUT": "6",
        "DELTALOOM_SWEEP_INTERVAL": "0.2",
        "DELTALOOM_BATCH_SIZE": "20",
        "DELTALOOM_MAX_EVENT_BYTES": str(MAX_EVENT_BYTES),
        "DELTALOOM_MAX_ARRAY_LENGTH": str(MAX_ARRAY_LENGTH),
        "DELTALOOM_MAX_DELIVERIES": "100",
        "DELTALOOM_LOG_LEVEL": "error",
    }
    died: list[str] = []
    workers = Workers(folder, worker_command(None), environment, died.append)
    workers.slots = [WorkerSlot(number) for number in range(count)]
    try:
        for slot in workers.slots:
            await workers.start(slot)
        publishing = asyncio.create_task(publish(redis, prefix))
        order = random.Random(count)
        for _ in range(6 if kills else 0):
            before = await redis.xlen(StreamNames(prefix).assembled)

            async def gone_on(before: int = before) -> bool:
                return publishing.done() or await redis.xlen(StreamNames(prefix).assembled) > before

            await wait_until(gone_on, 30, message="texts come out between two kills")
            slot = order.choice(workers.slots)
            await workers.kill(slot)
            await workers.start(slot)
        await publishing

        async def all_done() -> bool:
            return await settled(redis, prefix) and not await redis.zcard(StreamNames(prefix).name("open"))

        await wait_until(all_done, 60, message="all entries are read, all texts finished or abandoned")
        assert await workers.end() == []
        assert died == []
    finally:
        await workers.kill_all()
    return results(await texts(redis, prefix))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_same_results_with_any_number_of_workers_and_kills(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Give the same results for one, two and four workers, with and without kills."""
    names = [(count, kills) for count in (1, 2, 4) for kills in (False, True)]
    all_results = {}
    for count, kills in names:
        folder = tmp_path / f"{count}-{kills}"
        folder.mkdir()
        all_results[count, kills] = await run(
            redis, redis_url, f"{prefix}-{count}-{kills}", folder, count, kills=kills
        )
    first = all_results[1, False]
    expected = [text for n in range(RESPONSES) for text in make_response("same", 0, n).expected.texts]
    assert len(first) == len(expected)
    for which, other in all_results.items():
        assert other == first, which
