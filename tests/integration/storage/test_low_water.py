"""Tests that a commit names as ready all that the low-water mark has passed, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from handlers.core.identity import StreamKey
from service.storage import commit_plan
from tests.bench import COMPLETED, KEEPALIVE, delta, done
from tests.workers import texts

if TYPE_CHECKING:
    from service.ports import Committed
    from tests.bench import Bench

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every worker that holds an entry for stuck."""
    monkeypatch.setattr(commit_plan, "STALLED_MS", -1)


def named(committed: Committed) -> list[str]:
    """Return the responses that a commit names, in any way."""
    loaded = [each.state.stream_key for each in committed.loaded]
    return sorted(key.value for key in (*loaded, *committed.ready))


async def test_a_closing_that_came_first_counts_though_it_is_stored_later(bench: Bench) -> None:
    """Otherwise a text that could come out waits for a worker that holds what came after its end."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 3000, delta(1, "a"), done("a"))
    closing = await bench.consumer("one").read()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    held = await bench.consumer("slow").read()
    await bench.publish_at(now_ms - 1000, COMPLETED)
    await bench.commit(await bench.consumer("two").read())
    await bench.consumer("one").take(closing)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]
    await bench.consumer("slow").take(held)
    assert await bench.member_scores("waiting") == {}


async def test_a_closing_that_came_first_counts_though_another_is_stored_later(bench: Bench) -> None:
    """Otherwise a second closing hides the first one, and its text waits for what came after it."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 3000, delta(1, "a"), done("a"))
    closing = await bench.consumer("one").read()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    held = await bench.consumer("slow").read()
    await bench.publish_at(now_ms - 1000, COMPLETED)
    ending = await bench.consumer("two").read()
    await bench.commit(closing)
    await bench.commit(ending)
    await bench.consumer("sweeper").worker.sweep()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]
    await bench.consumer("slow").take(held)
    assert await bench.member_scores("waiting") == {}


async def test_a_batch_finishes_what_others_have_left(bench: Bench) -> None:
    """Otherwise a text whose worker was stopped waits for a sweep, though batches come all the time."""
    await bench.publish(delta(1, "a"), done("a"))
    await bench.commit(await bench.consumer("stopped").read())
    await bench.publish(KEEPALIVE, response_id="resp_2")
    await bench.consumer("two").work()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]


async def test_what_is_closed_after_an_entry_in_hand_is_not_named(bench: Bench) -> None:
    """Otherwise every commit reads responses of which it may finish nothing."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    await bench.consumer("slow").read()
    await bench.publish_at(now_ms - 1000, delta(1, "a"), done("a"))
    assert named(await bench.commit(await bench.consumer("one").read())) == []


@pytest.mark.parametrize("group", ["a-group", "z-group"])
@pytest.mark.parametrize("begin", ["0", "$"])
async def test_another_group_on_the_input_changes_nothing(bench: Bench, group: str, begin: str) -> None:
    """Otherwise a second program that reads the input holds all texts up."""
    await bench.publish(KEEPALIVE)
    await bench.consumer("one").work()
    await bench.redis.xgroup_create(bench.names.deltas, group, id=begin)
    await bench.publish(delta(1, "a"), done("a"))
    await bench.consumer("one").work()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]


@pytest.mark.usefixtures("stalled")
async def test_a_response_is_named_once_though_it_is_ready_in_two_ways(bench: Bench) -> None:
    """Otherwise it is read and settled twice."""
    at = await bench.now_ms()
    await bench.publish_at(at, KEEPALIVE)
    await bench.consumer("stuck").read()
    await bench.publish_at(at, CREATED, delta(1, "a"), done("a"))
    assert named(await bench.commit(await bench.consumer("one").read())) == ["resp_1"]


@pytest.mark.usefixtures("stalled")
async def test_what_grew_is_named_once_though_two_of_its_parts_did(bench: Bench) -> None:
    """Otherwise a response with several parts is read as often as it has parts."""
    at = await bench.now_ms()
    await bench.publish_at(at, KEEPALIVE)
    await bench.consumer("stuck").read()
    second = {"content_index": 1}
    await bench.publish_at(at + 10, CREATED, delta(1, "a"), {**delta(2, "b"), **second})
    await bench.commit(await bench.consumer("one").read())
    await bench.publish_at(at + 20, delta(3, "c"), {**delta(4, "d"), **second})
    grown = await bench.consumer("one").read()
    await bench.publish_at(at + 30, done("ac"))
    await bench.consumer("two").work()
    assert named(await bench.commit(grown)) == ["resp_1"]


@pytest.mark.usefixtures("stalled")
async def test_only_what_is_closed_is_named_while_a_worker_is_stuck(bench: Bench) -> None:
    """Otherwise every commit reads all that it has touched as long as one worker is stuck."""
    await bench.publish(KEEPALIVE)
    await bench.consumer("stuck").read()
    await bench.publish(CREATED, delta(1, "a"), delta(2, "b"), response_id="open")
    await bench.publish(CREATED, delta(1, "a"), done("a"), response_id="closed")
    committed = await bench.commit(await bench.consumer("one").read())
    assert named(committed) == ["closed"]
    assert committed.low_water.stalled


@pytest.mark.usefixtures("stalled")
async def test_a_look_names_all_that_is_closed_while_a_worker_is_stuck(bench: Bench) -> None:
    """Otherwise a text that is certain waits for a worker that hangs."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    await bench.consumer("stuck").read()
    await bench.publish_at(now_ms - 1000, CREATED, delta(1, "a"), done("a"))
    await bench.commit(await bench.consumer("stopped").read())
    survey = await bench.storage.survey(1000)
    assert (survey.ready, survey.low_water.stalled) == ([StreamKey("response", "resp_1")], True)


async def test_a_look_names_nothing_that_is_in_doubt(bench: Bench) -> None:
    """Otherwise every sweep reads all responses that wait for a worker with a long batch."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    await bench.consumer("slow").read()
    await bench.publish_at(now_ms - 1000, CREATED, delta(1, "a"), done("a"))
    await bench.commit(await bench.consumer("stopped").read())
    survey = await bench.storage.survey(1000)
    assert (list(survey.ready), survey.low_water.stalled) == ([], False)


async def test_a_text_waits_for_the_oldest_entry_in_hand(bench: Bench) -> None:
    """Otherwise it comes out without the deltas of the slower one of two workers."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 4000, delta(1, "a"))
    held = await bench.consumer("slow").read()
    await bench.publish_at(now_ms - 3000, delta(2, "b"), done("ab"))
    await bench.consumer("one").work()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    await bench.consumer("less slow").read()
    await bench.consumer("sweeper").worker.sweep()
    await bench.publish_at(now_ms - 1000, KEEPALIVE)
    await bench.consumer("one").work()
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer("slow").take(held)
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("ab", "verified")


async def test_texts_of_a_response_that_a_batch_knows_in_part_are_all_finished(bench: Bench) -> None:
    """Otherwise the end of a response finishes only the parts that came in the same batch."""
    second = {"content_index": 1}
    await bench.publish(delta(1, "a"), {**delta(2, "b"), **second})
    await bench.consumer("one").work()
    await bench.publish(done("a"), COMPLETED)
    committed = await bench.commit(await bench.consumer("two").read())
    assert (len(committed.loaded), committed.ready) == (0, [StreamKey("response", "resp_1")])
    await bench.consumer("sweeper").worker.sweep()
    assert sorted(text.text for text in await texts(bench.redis, bench.prefix)) == ["a", "b"]
