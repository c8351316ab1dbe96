"""Tests of responses that a filter or a policy stopped: one alert each, however often the end is repeated."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from handlers import BUILT_IN
from handlers.core.identity import StreamKey
from handlers.core.routing import RoutingTable
from service.keys import Keys
from service.pipeline.settling import settle
from service.storage import settle_plan
from tests.bench import KEEPALIVE, Bench, delta
from tests.streams import add, entries
from tests.workers import alerts

if TYPE_CHECKING:
    from redis.asyncio import Redis

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-4o"}}
FILTERED = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}
BLOCKED = {"type": "response.failed", "response": {"error": {"code": "cyber_policy", "message": "no"}}}
ERROR = {"type": "error", "code": "cyber_policy", "message": "no"}


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench on a prefix of its own."""
    return Bench(redis, prefix)


async def raised(bench: Bench) -> list[tuple[str, str | None]]:
    """Return type and reason of each alert."""
    return [
        (alert.type.removeprefix("deltaloom."), alert.reason)
        for alert in await alerts(bench.redis, bench.prefix)
    ]


@pytest.mark.parametrize(
    ("end", "alert_type", "code"),
    [
        (FILTERED, "deltaloom.response.filtered", "content_filter"),
        (BLOCKED, "deltaloom.response.blocked", "cyber_policy"),
        (ERROR, "deltaloom.response.blocked", "cyber_policy"),
    ],
    ids=["incomplete", "failed", "error"],
)
async def test_alert_has_context_and_reason(
    bench: Bench, end: dict[str, Any], alert_type: str, code: str
) -> None:
    """A stopped response raises an alert with its reason and context, even without a refusal."""
    await bench.publish(CREATED, end, tenant="acme")
    await bench.consumer().work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.reason, alert.response_id) == (alert_type, code, "resp_1")
    assert (alert.model, alert.tenant, alert.text, alert.kind) == ("gpt-4o", "acme", "", None)
    ((_, fields),) = await entries(bench.redis, bench.names.alerts)
    assert set(fields) == {b"__data__", b"type", b"id", b"response_id"}


async def test_error_and_failed_are_one(bench: Bench) -> None:
    """`error` and `response.failed` of one response raise one alert, together or one after the other."""
    await bench.publish(CREATED, ERROR, BLOCKED)
    for _ in range(3):
        await bench.consumer().work(1)
    await bench.publish(CREATED, ERROR, BLOCKED, response_id="resp_2")
    await bench.consumer().work()
    assert await raised(bench) == [("response.blocked", "cyber_policy")] * 2


async def test_the_code_may_come_with_the_second_event(bench: Bench) -> None:
    """The alert is raised even if only the second of two end events has the code."""
    await bench.publish({"type": "error", "message": "no"})
    await bench.consumer().work()
    await bench.publish(BLOCKED)
    await bench.consumer().work()
    assert await raised(bench) == [("response.blocked", "cyber_policy")]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("reasoning_text", ["response.filtered"]), ("refusal", ["refusal.opened", "refusal.finished"])],
)
async def test_a_repeat_raises_nothing(bench: Bench, kind: str, expected: list[str]) -> None:
    """Otherwise a producer's retry or a redelivered entry would raise the alert again.

    A response with a refusal raises the refusal's alerts only.
    """
    await bench.publish(delta(1, "I can't", kind), FILTERED, FILTERED)
    entries = await bench.consumer("stopped").read()
    for name in ("one", "two"):
        await bench.consumer(name).process(entries)
    await bench.publish(FILTERED)
    await bench.consumer().work()
    assert [alert for alert, _ in await raised(bench)] == expected


async def test_two_workers_settle_it_at_once(bench: Bench) -> None:
    """Two workers that settle a response at the same time raise one alert."""
    await bench.publish(CREATED, BLOCKED)
    await bench.storage.commit(bench.batch(await bench.consumer("crashed").read()).commit)
    table = RoutingTable(BUILT_IN.values())
    key = StreamKey("response", "resp_1")
    survey = await bench.storage.survey(10_000)
    loaded = [await bench.storage.load([key]) for _ in range(2)]
    low_water, replication_id = survey.low_water, survey.replication_id
    await asyncio.gather(*(settle(bench.storage, table, each, low_water, replication_id) for each in loaded))
    await bench.consumer().worker.sweep()
    assert await raised(bench) == [("response.blocked", "cyber_policy")]


async def test_what_came_before_in_other_hands_is_waited_for(bench: Bench) -> None:
    """The alert waits for earlier entries in other workers, which may contain the model."""
    await bench.publish(CREATED, BLOCKED)
    first, second = await bench.consumer("one").read(1), await bench.consumer("two").read(1)
    await bench.consumer().process(second)
    assert await raised(bench) == []
    await bench.consumer().process(first)
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert alert.model == "gpt-4o"


@pytest.mark.parametrize(
    "end",
    [
        {"type": "response.completed", "response": {"output": []}},
        {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}},
        {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}},
        {"type": "error", "code": "rate_limit_exceeded"},
    ],
    ids=["completed", "too long", "failed", "error"],
)
async def test_other_ends_raise_nothing(bench: Bench, end: dict[str, Any]) -> None:
    """Other ends, such as an overload, raise no alert."""
    await bench.publish(CREATED, KEEPALIVE, end)
    await bench.consumer().work()
    assert await raised(bench) == []


async def test_without_a_response_id_the_item_is_named(bench: Bench) -> None:
    """The alert names the response's item if there is no response id."""
    item = {"type": "message", "id": "msg_1", "content": []}
    details = {"reason": "content_filter"}
    end = {"type": "response.incomplete", "response": {"incomplete_details": details, "output": [item]}}
    await add(bench.redis, bench.names.deltas, {"event": json.dumps(end)})
    await bench.consumer().work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.response_id, alert.item_id) == ("deltaloom.response.filtered", None, "msg_1")


async def test_it_is_remembered_for_as_long_as_a_text(bench: Bench) -> None:
    """A response without texts keeps its marker for the full time, so that repeated ends raise nothing."""
    await bench.publish(FILTERED)
    await bench.publish(CREATED, FILTERED, response_id="resp_2")
    await bench.consumer().work()
    remembered_ms = bench.settings.remembered * 1000
    keys = Keys(bench.names)
    for name in ("resp_1", "resp_2"):
        key = StreamKey("response", name)
        assert 0 < await bench.redis.pttl(keys.state(key)) <= settle_plan.OVER_MS
        assert remembered_ms - 60_000 < await bench.redis.pttl(keys.marker(key)) <= remembered_ms
    await bench.redis.delete(keys.state(StreamKey("response", "resp_1")))
    await bench.publish(FILTERED)
    await bench.consumer().work()
    assert len(await raised(bench)) == 2


async def test_a_worker_that_settles_after_expiry_raises_nothing(bench: Bench) -> None:
    """A worker that settles after the response's state has expired raises and counts nothing."""
    await bench.publish(CREATED, BLOCKED)
    await bench.storage.commit(bench.batch(await bench.consumer("stopped").read()).commit)
    survey = await bench.storage.survey(10_000)
    loaded = await bench.storage.load([StreamKey("response", "resp_1")])
    state = bench.names.name("state:response:resp_1")
    await bench.redis.delete(state)
    await settle(
        bench.storage, RoutingTable(BUILT_IN.values()), loaded, survey.low_water, survey.replication_id
    )
    assert await raised(bench) == []
    assert await bench.redis.keys(bench.names.name("rates:*")) == []
    assert await bench.redis.exists(state) == 0
