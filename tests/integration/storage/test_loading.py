"""Responses are read with all of their open logs, whatever this process knows of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from handlers.core.identity import StreamKey
from service.storage import loading
from tests.bench import delta

if TYPE_CHECKING:
    from handlers.core.identity import PartKey
    from service.ports.storage import LoadedResponse, Storage
    from tests.bench import Bench

KEYS = [StreamKey("response", f"resp_{n}") for n in range(3)]


def texts_of(responses: list[LoadedResponse]) -> list[list[str]]:
    """Return the joined deltas of the open parts of each response."""
    return [[log.assembled()[0].text for log in each.state.open_parts.values()] for each in responses]


async def load(storage: Storage) -> list[list[str]]:
    """Load the responses, and return the joined deltas of their open parts."""
    return texts_of(list(await storage.load(KEYS)))


async def stored(bench: Bench, *kinds: str) -> Storage:
    """Store a text of each kind for each response, and return the storage of the worker that did it."""
    consumer = bench.consumer(storage=bench.storage)
    for key in KEYS:
        for kind in kinds:
            await bench.publish(delta(1, f"{key.value} {kind}", kind), response_id=key.value)
    await consumer.work()
    return bench.storage


async def test_one_call_reads_the_responses_of_this_process(bench: Bench) -> None:
    """Otherwise giving up a response would take three round trips, two of them through redis-py."""
    storage = await stored(bench, "refusal")
    await bench.redis.config_resetstat()
    assert await load(storage) == [[f"{key.value} refusal"] for key in KEYS]
    stats = await bench.redis.info("commandstats")
    assert "cmdstat_strlen" not in stats
    assert [stats[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "hgetall", "get")] == [1, 3, 3]


async def test_the_responses_of_another_process_are_read(bench: Bench) -> None:
    """Otherwise a worker could not settle what it has not stored itself."""
    await stored(bench, "refusal", "reasoning_text")
    other = bench.consumer("other").worker
    assert [sorted(texts) for texts in await load(other._storage)] == [  # noqa: SLF001 - as a sweep does
        [f"{key.value} reasoning_text", f"{key.value} refusal"] for key in KEYS
    ]


async def test_a_part_that_another_process_began_is_read(bench: Bench) -> None:
    """Otherwise its text would be missing, as if another worker had finished it."""
    storage = await stored(bench, "refusal")
    await bench.publish(delta(2, "more", "reasoning_text"), response_id=KEYS[1].value)
    await bench.consumer("other").work()
    assert sorted((await load(storage))[1]) == ["more", "resp_1 refusal"]


@pytest.mark.parametrize("at_once", [1, 100, 250])
async def test_large_responses_are_read_in_several_calls(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Otherwise a call could block the server for long, or a response would be read in part."""
    storage = await stored(bench, "refusal", "reasoning_text")
    monkeypatch.setattr(loading, "_BYTES_AT_ONCE", at_once)
    await bench.redis.config_resetstat()
    assert [sorted(texts) for texts in await load(storage)] == [
        [f"{key.value} reasoning_text", f"{key.value} refusal"] for key in KEYS
    ]
    assert (await bench.redis.info("commandstats"))["cmdstat_evalsha"]["calls"] > 1


async def test_a_finished_part_is_not_open(bench: Bench) -> None:
    """Otherwise a part whose log is gone would count as open, or its digest would be lost."""
    storage = await stored(bench, "refusal")
    closing = {**delta(9, "", "refusal"), "type": "response.refusal.done", "refusal": "resp_0 refusal"}
    del closing["delta"]
    await bench.publish(closing, response_id=KEYS[0].value)
    await bench.consumer(storage=storage).work()
    (loaded, *_) = await storage.load(KEYS)
    parts: list[PartKey] = list(loaded.state.finished_parts)
    assert (loaded.state.open_parts, len(parts)) == ({}, 1)
