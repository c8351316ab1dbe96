"""Tests of responses that another model answered: one alert each, whatever is repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from handlers.core.identity import StreamKey
from service.keys import Keys
from tests.bench import Bench, delta
from tests.integration.test_contract_rules import FALLBACK
from tests.waiting import wait_until
from tests.workers import alerts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom import ModerationAlert

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "a"}}
OTHER = FALLBACK | {"to_model": "c"}
COMPLETED: dict[str, Any] = {"type": "response.completed", "response": {}}
FILTERED = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench on a prefix of its own."""
    return Bench(redis, prefix)


async def raised(bench: Bench) -> list[ModerationAlert]:
    """Return the alerts."""
    return await alerts(bench.redis, bench.prefix)


def to_models(found: list[ModerationAlert]) -> list[str | None]:
    """Return the model that answered, of each alert."""
    return [each.fallback.to_model if each.fallback else None for each in found]


async def test_the_alert_names_both_models_and_comes_with_the_end(bench: Bench) -> None:
    """Raise the alert when the response is over, with its context, though it completed."""
    await bench.publish(CREATED, FALLBACK, delta(1, "Why?", "reasoning_text"), tenant="acme")
    await bench.consumer().work()
    assert await raised(bench) == []
    await bench.publish(COMPLETED)
    await bench.consumer().work()
    (alert,) = await raised(bench)
    assert (alert.type, alert.status, alert.reason) == ("deltaloom.response.fallback", "completed", None)
    assert (alert.tenant, alert.model, alert.response_id) == ("acme", "a", "resp_1")
    assert alert.fallback is not None
    assert alert.fallback.model_dump() == {"from_model": "a", "to_model": "b", "trigger": "refusal"}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_the_first_fallback_counts_in_any_batches(bench: Bench, size: int) -> None:
    """Raise one alert, about the first report, however the entries are divided and repeated."""
    await bench.publish(CREATED, FALLBACK, OTHER, FALLBACK, COMPLETED, COMPLETED, FILTERED)
    read = await bench.consumer("stopped").read()
    for start in range(0, len(read), size):
        for name in ("one", "two"):
            await bench.consumer(name).process(read[start : start + size])
    assert to_models([each for each in await raised(bench) if each.fallback]) == ["b"]


async def test_a_replay_of_the_whole_response_raises_nothing(bench: Bench) -> None:
    """Remember the alert for as long as texts, also when the state has expired."""
    await bench.publish(CREATED, FALLBACK, COMPLETED)
    await bench.consumer().work()
    await bench.redis.delete(Keys(bench.names).state(StreamKey("response", "resp_1")))
    await bench.publish(CREATED, OTHER, COMPLETED)
    await bench.consumer().work()
    assert to_models(await raised(bench)) == ["b"]


async def test_a_response_that_ends_badly_has_both_alerts(bench: Bench) -> None:
    """Tell of the fallback also if the second model was filtered, and do not count it as refused."""
    await bench.publish(CREATED, FALLBACK, FILTERED)
    await bench.consumer().work()
    assert [(each.type.rpartition(".")[2], each.reason) for each in await raised(bench)] == [
        ("filtered", "content_filter"),
        ("fallback", "content_filter"),
    ]


async def test_an_abandoned_response_raises_it_too(redis: Redis, prefix: str) -> None:
    """Raise the alert when the response is given up: a producer may die before the end."""
    bench = Bench(redis, prefix, idle_timeout=0.1)
    await bench.publish(FALLBACK)
    consumer = bench.consumer()
    await consumer.work()

    async def is_given_up() -> bool:
        await consumer.worker.sweep()
        return bool(await raised(bench))

    await wait_until(is_given_up)
    (alert,) = await raised(bench)
    assert (alert.status, alert.reason) == ("abandoned", "idle_timeout")
    assert to_models([alert]) == ["b"]
