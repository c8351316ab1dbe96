"""Tests of which batches do not wait for further entries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from handlers import BUILT_IN
from tests.bench import Bench, Consumer, delta, done

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def is_urgent(bench: Bench, one: Consumer, *events: dict[str, Any] | str, response_id: str) -> bool:
    """Publish events, read them into a batch, ask if it is urgent, and process it."""
    await bench.publish(*events, response_id=response_id)
    entries = await one.read()
    urgent = one.worker.is_urgent(one.worker.builder(entries))
    await one.process(entries)
    return urgent


async def test_a_refusal_that_begins_is_urgent(redis: Redis, prefix: str) -> None:
    """A batch with a refusal's first delta is processed at once; its further deltas may wait."""
    bench = Bench(redis, prefix)
    one = bench.consumer()
    assert not await is_urgent(bench, one, delta(0, "Hm"), response_id="resp_1")
    assert await is_urgent(bench, one, delta(1, "Hm"), delta(2, "No", "refusal"), response_id="resp_1")
    assert not await is_urgent(bench, one, delta(3, "No", "refusal"), response_id="resp_1")
    assert await is_urgent(bench, one, json.dumps([delta(0, "No", "refusal")]), response_id="resp_2")


async def test_a_refusal_that_ends_is_urgent(redis: Redis, prefix: str) -> None:
    """The end of a refusal raises an alert, so its batch is processed at once; other texts may wait."""
    bench = Bench(redis, prefix)
    one = bench.consumer()
    assert not await is_urgent(bench, one, done("Hm"), response_id="resp_1")
    assert await is_urgent(bench, one, done("No", "refusal"), response_id="resp_1")


async def test_nothing_is_urgent_without_the_handler_of_refusals(redis: Redis, prefix: str) -> None:
    """A worker that raises no opening alerts has no urgent batches."""
    bench = Bench(redis, prefix)
    handlers = [handler for name, handler in BUILT_IN.items() if name != "refusal"]
    consumer = bench.consumer(handlers=handlers)
    assert not await is_urgent(bench, consumer, delta(0, "No", "refusal"), response_id="r")
