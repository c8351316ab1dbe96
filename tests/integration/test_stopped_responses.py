"""Responses that a filter or a policy stopped: an alert each, once, whoever says it how often."""

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
    """A partition of its own."""
    return Bench(redis, prefix)


async def raised(bench: Bench) -> list[tuple[str, str | None]]:
    """The alerts: type and reason."""
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
async def test_alert_says_whose_response_and_why(
    bench: Bench, end: dict[str, Any], alert_type: str, code: str
) -> None:
    """A response that had no refusal, only a code, would go unseen."""
    await bench.publish(CREATED, end, tenant="acme")
    await bench.consumer().work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.reason, alert.response_id) == (alert_type, code, "resp_1")
    assert (alert.model, alert.tenant, alert.text, alert.kind) == ("gpt-4o", "acme", "", None)
    ((_, fields),) = await entries(bench.redis, bench.names.alerts)
    assert set(fields) == {b"__data__", b"type", b"id", b"response_id"}


async def test_error_and_failed_are_one(bench: Bench) -> None:
    """One failure would ring twice: together, one after the other, or the second one days later."""
    await bench.publish(CREATED, ERROR, BLOCKED)
    for _ in range(3):
        await bench.consumer().work(1)
    await bench.publish(CREATED, ERROR, BLOCKED, response_id="resp_2")
    await bench.consumer().work()
    assert await raised(bench) == [("response.blocked", "cyber_policy")] * 2


async def test_the_code_may_come_with_the_second_event(bench: Bench) -> None:
    """An `error` without a code, settled before the `response.failed` that has it, would hide it."""
    await bench.publish({"type": "error", "message": "no"})
    await bench.consumer().work()
    await bench.publish(BLOCKED)
    await bench.consumer().work()
    assert await raised(bench) == [("response.blocked", "cyber_policy")]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("reasoning_text", ["response.filtered"]), ("refusal", ["refusal.opened", "refusal.finished"])],
)
async def test_a_repeat_says_nothing(bench: Bench, kind: str, expected: list[str]) -> None:
    """Otherwise a producer's retry, or an entry that is delivered again, would ring again.

    Where there is a refusal, its own alerts say it all.
    """
    await bench.publish(delta(1, "I can't", kind), FILTERED, FILTERED)
    entries = await bench.consumer("stopped").read()
    for name in ("one", "two"):
        await bench.consumer(name).take(entries)
    await bench.publish(FILTERED)
    await bench.consumer().work()
    assert [alert for alert, _ in await raised(bench)] == expected


async def test_two_workers_settle_it_at_once(bench: Bench) -> None:
    """Both would raise the alert."""
    await bench.publish(CREATED, BLOCKED)
    await bench.storage.commit(bench.batch(await bench.consumer("crashed").read()).commit)
    table = RoutingTable(BUILT_IN.values())
    key = StreamKey("response", "resp_1")
    survey = await bench.storage.survey(10_000)
    loaded = [await bench.storage.load([key]) for _ in range(2)]
    low_water, history = survey.low_water, survey.history
    await asyncio.gather(*(settle(bench.storage, table, each, low_water, history) for each in loaded))
    await bench.consumer().worker.sweep()
    assert await raised(bench) == [("response.blocked", "cyber_policy")]


async def test_what_came_before_in_other_hands_is_waited_for(bench: Bench) -> None:
    """The alert would not know the model, if another worker still had the entry that says it."""
    await bench.publish(CREATED, BLOCKED)
    first, second = await bench.consumer("one").read(1), await bench.consumer("two").read(1)
    await bench.consumer().take(second)
    assert await raised(bench) == []
    await bench.consumer().take(first)
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
    """Every overload would ring."""
    await bench.publish(CREATED, KEEPALIVE, end)
    await bench.consumer().work()
    assert await raised(bench) == []


async def test_without_a_response_id_the_item_is_named(bench: Bench) -> None:
    """A producer that gives no response id would learn of no filter at all."""
    item = {"type": "message", "id": "msg_1", "content": []}
    details = {"reason": "content_filter"}
    end = {"type": "response.incomplete", "response": {"incomplete_details": details, "output": [item]}}
    await add(bench.redis, bench.names.deltas, {"event": json.dumps(end)})
    await bench.consumer().work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.response_id, alert.item_id) == ("deltaloom.response.filtered", None, "msg_1")


async def test_it_is_remembered_for_as_long_as_a_text(bench: Bench) -> None:
    """A response that left nothing else is soon forgotten: the same end, said again, would ring again."""
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


async def test_a_worker_that_goes_on_after_all_is_forgotten_says_nothing(bench: Bench) -> None:
    """It was stopped between reading and settling for so long that others have done it, and forgotten."""
    await bench.publish(CREATED, BLOCKED)
    await bench.storage.commit(bench.batch(await bench.consumer("stopped").read()).commit)
    survey = await bench.storage.survey(10_000)
    loaded = await bench.storage.load([StreamKey("response", "resp_1")])
    state = bench.names.name("state:response:resp_1")
    await bench.redis.delete(state)
    await settle(bench.storage, RoutingTable(BUILT_IN.values()), loaded, survey.low_water, survey.history)
    assert await raised(bench) == []
    assert await bench.redis.keys(bench.names.name("rates:*")) == []
    assert await bench.redis.exists(state) == 0
