"""A server that has lost some of a response's state: workers send it again, and the outputs are correct."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.bench import COMPLETED, delta, done
from tests.workers import alerts, counts, texts

if TYPE_CHECKING:
    from tests.bench import Bench

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}
BLOCKED = {"type": "response.failed", "response": {"error": {"code": "content_policy_violation"}}}
ITEM_DONE = {
    "type": "response.output_item.done",
    "output_index": 7,
    "item": {"type": "message", "id": "item_7", "content": []},
}


async def lose(bench: Bench, what: str) -> None:
    """Delete keys of responses, as if the server was restored from an old copy."""
    for key in await bench.redis.keys(f"{bench.prefix}:{what}:*"):
        await bench.redis.delete(key)


async def test_entries_that_survived_a_failover_are_reported(bench: Bench) -> None:
    """Otherwise a worker would store entries that a failover has lost, and drop those that still exist."""
    await bench.publish(*(delta(number, "a") for number in range(4)))
    batch = await bench.consumer().read()
    await bench.redis.xdel(bench.names.deltas, batch[0].id, batch[2].id)
    committed = await bench.storage.commit(bench.batch(batch).commit, "0" * 40)
    assert (committed.surviving_entries, committed.acknowledged) == ([1, 3], 0)
    assert await bench.pending() == {"one": 4}
    assert await bench.redis.keys(f"{bench.prefix}:[ls]*:*") == []


async def test_the_context_of_a_response_without_texts_is_sent_again(bench: Bench) -> None:
    """Otherwise the alert would lack the response's context."""
    consumer = bench.consumer()
    await bench.publish(CREATED, tenant="acme")
    await consumer.work()
    await lose(bench, "state")
    await bench.publish(BLOCKED, tenant="acme")
    await consumer.work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.tenant) == ("deltaloom.response.blocked", "acme")


async def test_the_context_is_sent_again_with_a_new_part(bench: Bench) -> None:
    """Otherwise a text that begins after the loss would lack its context."""
    consumer = bench.consumer()
    await bench.publish(delta(1, "a"), tenant="acme")
    await consumer.work()
    await lose(bench, "[ls]*")
    second = {"content_index": 1}
    await bench.publish({**delta(2, "b"), **second}, {**done("b"), **second}, tenant="acme")
    await consumer.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.tenant) == ("b", "acme")


async def test_only_lost_responses_are_sent_again(bench: Bench) -> None:
    """Otherwise the context of the wrong response would be sent again."""
    consumer = bench.consumer()
    for name in ("resp_1", "resp_2", "resp_3"):
        await bench.publish(delta(1, "a"), response_id=name, tenant=name)
    await consumer.work()
    await bench.redis.delete(*await bench.redis.keys(f"{bench.prefix}:[ls]*:response:resp_2*"))
    for name in ("resp_1", "resp_2", "resp_3"):
        await bench.publish(delta(2, "b"), done("ab"), response_id=name, tenant=name)
    await consumer.work()
    written = {text.response_id: text.tenant for text in await texts(bench.redis, bench.prefix)}
    assert written == {name: name for name in ("resp_1", "resp_2", "resp_3")}


async def test_a_finished_part_is_not_taken_for_a_lost_one(bench: Bench) -> None:
    """Otherwise a late delta would make a finished text come out again."""
    consumer = bench.consumer()
    await bench.publish(delta(1, "a"), tenant="acme")
    await consumer.work()
    await bench.publish(done("a"), tenant="acme")
    await bench.consumer("other").work()
    await bench.publish(delta(2, "late"), tenant="acme")
    await consumer.work()
    await bench.consumer("sweeper").worker.sweep()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]
    assert await counts(bench.redis, bench.prefix) == {"late": 1}
    assert await bench.redis.keys(f"{bench.prefix}:log:*") == []


@pytest.mark.parametrize("first", ["one", "two"])
async def test_the_earliest_context_counts_whoever_stores_it_first(bench: Bench, first: str) -> None:
    """Otherwise a text's context would depend on which worker was faster."""
    await bench.publish(delta(1, "a"), tenant="early")
    early = await bench.consumer("one").read()
    await bench.publish(delta(2, "b"), tenant="later")
    later = await bench.consumer("two").read()
    for batch in (early, later) if first == "one" else (later, early):
        await bench.consumer("any").process(batch)
    await bench.publish(done("ab"), tenant="last")
    await bench.consumer().work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert text.tenant == "early"


async def test_a_response_known_by_its_context_alone_is_open(bench: Bench) -> None:
    """Otherwise a response that fails before its first delta would never be abandoned, nor counted."""
    await bench.publish(CREATED)
    await bench.consumer().work()
    assert list(await bench.member_scores("open")) == ["response:resp_1"]
    await bench.publish(COMPLETED)
    await bench.consumer().work()
    assert await bench.member_scores("open") == {}


async def test_known_context_of_a_finished_response_opens_nothing(bench: Bench) -> None:
    """Otherwise a late event of a finished response would open it, and it would be abandoned later."""
    await bench.publish(delta(1, "a"), done("a"), COMPLETED, tenant="acme")
    await bench.consumer().work()
    await bench.publish(delta(2, "late"), tenant="acme")
    await bench.consumer("other").work()
    assert await bench.member_scores("open") == {}


@pytest.mark.parametrize("event", [CREATED, delta(1, "a"), done("a"), ITEM_DONE, COMPLETED])
async def test_all_that_is_stored_of_a_response_expires(bench: Bench, event: dict[str, Any]) -> None:
    """Otherwise a response without an end would stay in Redis if no worker runs any more."""
    await bench.publish(event)
    await bench.commit(await bench.consumer().read())
    keys = await bench.redis.keys(f"{bench.prefix}:[ls]*:response:*")
    assert keys
    for key in keys:
        left = await bench.redis.pttl(key)
        assert 0 <= bench.settings.state_ttl * 1000 - left < 60_000


async def test_the_context_lives_as_long_as_something_is_said_of_the_response(bench: Bench) -> None:
    """Otherwise a text that streams for long would lose its context."""
    await bench.publish(delta(1, "a"))
    await bench.consumer().work()
    (state,) = await bench.redis.keys(f"{bench.prefix}:state:*")
    for event in (
        delta(2, "b"),
        CREATED,
        {"type": "response.output_item.done", "output_index": 5, "item": {}},
    ):
        await bench.redis.pexpire(state, 5000)
        await bench.publish(event)
        await bench.consumer("new").work()
        assert await bench.redis.pttl(state) > 5000, event["type"]
