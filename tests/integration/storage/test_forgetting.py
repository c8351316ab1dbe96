"""Tests of the time for which the state of a finished response is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaloom import StreamNames
from handlers.core.identity import StreamKey
from service.keys import Keys
from service.storage import settle_plan
from tests.bench import COMPLETED, delta, done
from tests.workers import alerts, texts

if TYPE_CHECKING:
    from tests.bench import Bench

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}
FILTERED = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}
TOLERANCE_MS = 60_000
MARKER = Keys(StreamNames("")).marker(StreamKey("response", "resp_1")).removeprefix(":")


async def remembered_ms(bench: Bench, state: str = "state:response:resp_1") -> int:
    """Return the remaining life of a response's state, or of another key, in milliseconds."""
    return int(await bench.redis.pttl(bench.names.name(state)))


async def test_a_finished_text_is_remembered_for_the_markers_time(bench: Bench) -> None:
    """Otherwise a text would come out again with repeated events, or be remembered forever."""
    await bench.publish(delta(1, "a"), done("a"), COMPLETED)
    await bench.consumer().work()
    assert 0 <= bench.settings.remembered * 1000 - await remembered_ms(bench, MARKER) < TOLERANCE_MS
    await bench.publish(delta(1, "a"), done("a"), COMPLETED)
    await bench.consumer().work()
    assert len(await texts(bench.redis, bench.prefix)) == 1


async def test_an_alert_of_how_it_ended_is_remembered_for_the_markers_time(bench: Bench) -> None:
    """Otherwise a producer's retry would raise the alert again."""
    await bench.publish(FILTERED, model="m")
    await bench.consumer().work()
    assert 0 <= bench.settings.remembered * 1000 - await remembered_ms(bench, MARKER) < TOLERANCE_MS
    await bench.publish(FILTERED, model="m")
    await bench.consumer().work()
    assert len(await alerts(bench.redis, bench.prefix)) == 1


async def test_that_it_was_counted_is_remembered_for_minutes(bench: Bench) -> None:
    """Otherwise each response without texts would use memory for a week, or be counted twice."""
    await bench.publish(CREATED, COMPLETED)
    await bench.consumer().work()
    assert 0 <= settle_plan.OVER_MS - await remembered_ms(bench) < TOLERANCE_MS


async def test_that_it_was_counted_is_remembered_despite_new_context(bench: Bench) -> None:
    """Otherwise a response with more context in each repeat would be counted each time."""
    for context in ({"model": "m"}, {"model": "m", "tenant": "acme"}, {"model": "m"}):
        await bench.publish(COMPLETED, **context)
        await bench.consumer().work()
        assert await remembered_ms(bench) > 0
    bucket, *_ = await bench.redis.keys(bench.names.name("rates:*"))
    assert await bench.redis.hget(bucket, "responses:model:m") == b"1"


async def test_of_a_finished_text_nothing_but_the_marker_is_left(bench: Bench) -> None:
    """Otherwise the text's deltas, or its place among the texts to settle, would stay in Redis."""
    await bench.publish(delta(1, "a"), done("a"), COMPLETED)
    await bench.consumer().work()
    assert await bench.redis.keys(f"{bench.prefix}:log:*") == []
    assert await bench.member_scores("waiting") == await bench.member_scores("open") == {}
    fields: Any = await bench.redis.hgetall(bench.names.name("state:response:resp_1"))
    assert fields[b"part:0:0:reasoning"] == b"done"
    assert not [name for name in fields if name.startswith(b"end:")]


async def test_a_finished_item_can_be_looked_up_for_its_time(bench: Bench) -> None:
    """Otherwise `show` would find nothing, or the text would be kept for longer than allowed."""
    await bench.publish(delta(1, "a"), done("a"))
    await bench.consumer().work()
    item = "item:resp_1:0"
    assert b"reasoning:0" in await bench.redis.hgetall(bench.names.name(item))
    assert 0 <= bench.settings.item_ttl * 1000 - await remembered_ms(bench, item) < TOLERANCE_MS


async def test_a_text_before_its_response_ends_leaves_the_response_open(bench: Bench) -> None:
    """Otherwise the response would never be abandoned, nor counted."""
    await bench.publish(delta(1, "a"), done("a"))
    await bench.consumer().work()
    assert list(await bench.member_scores("open")) == ["response:resp_1"]
    assert await bench.member_scores("waiting") == {}
