"""Tests that a commit names as ready all that the low-water mark has passed, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import GROUP
from handlers.core.identity import StreamKey
from service.pipeline.gathering import DEAR_BYTES
from service.ports.storage import SetUpWronglyError
from service.storage import commit_plan
from tests.bench import COMPLETED, KEEPALIVE, delta, done
from tests.streams import add
from tests.workers import texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.ports.storage import Committed, RawEntry, Storage
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


BIG = {**KEEPALIVE, "x": "x" * DEAR_BYTES}


class Stopped:
    """A worker's storage that lets nothing be committed, as long as it takes."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.noted: dict[bytes, StreamKey] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def note_owners(self, owners: Mapping[bytes, StreamKey]) -> None:
        """Note them."""
        self.noted |= owners
        await self._storage.note_owners(owners)

    async def commit(self, *_args: Any, **_more: Any) -> Committed:
        """Do nothing."""
        raise _StoppedError


class _StoppedError(Exception):
    pass


async def hold(bench: Bench) -> list[RawEntry]:
    """Have a worker begin with what is unread, and stop before it commits; returns what it holds."""
    consumer = bench.consumer("slow")
    entries = await consumer.read()
    stopped: Any = Stopped(bench.storage)
    with pytest.raises(_StoppedError):
        await bench.consumer("slow", storage=stopped).take(entries)
    return entries


async def test_no_text_waits_for_a_large_entry_of_another_response(bench: Bench) -> None:
    """Otherwise whoever sends arrays of thousands holds up the texts of all others meanwhile."""
    at = await bench.now_ms()
    await bench.publish_at(at - 3000, BIG, response_id="large")
    held = await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(1, "a"), done("b"))
    await bench.consumer("one").work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("b", "repaired")
    await bench.consumer("slow").take(held)
    assert not await bench.redis.exists(bench.names.name("owners"))


async def test_a_text_waits_for_a_large_entry_of_its_own(bench: Bench) -> None:
    """Otherwise it comes out without the deltas of an array that takes long."""
    at = await bench.now_ms()
    large = [delta(1, "a" * DEAR_BYTES), delta(2, "b")]
    await bench.publish_at(at - 3000, json.dumps(large))
    held = await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(3, "c"), done("a" * DEAR_BYTES + "bc"))
    await bench.publish_at(at - 1000, CREATED, delta(1, "a"), done("b"), response_id="resp_2")
    await bench.consumer("one").work()
    await bench.consumer("one").worker.sweep()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["b"]
    await bench.consumer("slow").take(held)
    (_, text) = await texts(bench.redis, bench.prefix)
    assert (text.response_id, text.integrity, text.delta_count) == ("resp_1", "verified", 3)


async def test_a_text_waits_for_a_large_entry_that_does_not_say_whose_it_is(bench: Bench) -> None:
    """Otherwise a text comes out without what an array of its item has."""
    at = await bench.now_ms()
    await add(bench.redis, bench.names.deltas, {"event": json.dumps(BIG)}, f"{at - 3000}-0")
    held = await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(1, "a"), done("b"))
    await bench.consumer("one").work()
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer("slow").take(held)
    assert len(await texts(bench.redis, bench.prefix)) == 1


async def test_a_text_waits_for_what_is_older_than_a_large_entry(bench: Bench) -> None:
    """Otherwise one large entry hides all others in hand that may be of the text."""
    at = await bench.now_ms()
    await bench.publish_at(at - 4000, BIG, response_id="large")
    await hold(bench)
    await bench.publish_at(at - 3000, delta(1, "a"))
    older = await bench.consumer("other").read()
    await bench.publish_at(at - 2000, CREATED, delta(2, "b"), COMPLETED)
    await bench.consumer("one").work()
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer("other").take(older)
    (text,) = await texts(bench.redis, bench.prefix)
    assert text.text == "ab"


@pytest.mark.usefixtures("stalled")
async def test_a_worker_that_is_stuck_with_a_large_entry_holds_up_nothing_certain(bench: Bench) -> None:
    """Otherwise the texts of its response wait for a worker that hangs, though they are certain."""
    at = await bench.now_ms()
    await bench.publish_at(at - 3000, BIG)
    await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(1, "a"), done("a"))
    await bench.publish_at(at - 1000, CREATED, delta(1, "b"), done("c"), response_id="resp_2")
    await bench.consumer("one").work()
    await bench.consumer("one").worker.sweep()
    assert sorted(text.text for text in await texts(bench.redis, bench.prefix)) == ["a", "c"]


async def test_a_text_does_not_wait_for_a_later_large_entry_of_its_own(bench: Bench) -> None:
    """Otherwise a text waits as long as large entries of its response come behind its end."""
    at = await bench.now_ms()
    await bench.publish_at(at - 3000, CREATED, delta(1, "a"), done("b"))
    closing = await bench.consumer("one").read()
    await bench.publish_at(at - 1000, BIG)
    await hold(bench)
    await bench.consumer("one").take(closing)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["b"]


async def test_a_response_with_a_large_entry_does_not_end_the_look_at_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise those beyond the first ones that are ready wait for another sweep, or for many."""
    monkeypatch.setattr(commit_plan, "AT_MOST", 3)
    at = await bench.now_ms()
    await bench.publish_at(at - 4000, KEEPALIVE, response_id="resp_0")
    held = await bench.consumer("other").read()
    await bench.publish_at(at - 3000, BIG, response_id="resp_0")
    await hold(bench)
    for number in range(6):
        await bench.publish_at(at - 2000 + number, delta(1, "a"), done("b"), response_id=f"resp_{number}")
    await bench.commit(await bench.consumer("stopped").read())
    await bench.commit(held)
    survey = await bench.storage.survey(10**6)
    assert ([key.value for key in survey.ready], survey.more) == (["resp_1", "resp_2"], True)


async def test_nothing_is_acknowledged_while_the_owners_cannot_be_noted(bench: Bench) -> None:
    """Otherwise a batch is gone from the worker's hands, and it is told that nothing was."""
    await bench.redis.set(bench.names.name("owners"), "x", ex=60)
    await bench.publish(delta(1, "a"))
    entries = await bench.consumer("one").read()
    with pytest.raises(SetUpWronglyError, match="owners"):
        await bench.commit(entries)
    assert (await bench.redis.xpending(bench.names.deltas, GROUP))["pending"] == 1


@pytest.mark.usefixtures("stalled")
async def test_a_text_in_doubt_waits_for_the_oldest_large_entry_of_its_own(bench: Bench) -> None:
    """Otherwise it comes out without what a stuck worker has of it, once another has a later entry of it."""
    at = await bench.now_ms()
    await bench.publish_at(at - 3000, BIG)
    held = await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(1, "a"), done("b"))
    await bench.consumer("one").work()
    await bench.publish_at(at - 1000, BIG)
    await hold(bench)
    await bench.consumer("one").worker.sweep()
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer("slow").take(held)
    await bench.consumer("one").worker.sweep()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["b"]


async def test_what_a_worker_has_in_another_batch_is_no_trouble(bench: Bench) -> None:
    """Otherwise each entry of a batch is looked up by itself because a large one was taken out of it."""
    await bench.publish(delta(1, "a"))
    await bench.publish(BIG)
    await bench.publish(*[delta(number, "b") for number in range(2, 40)])
    consumer = bench.consumer("one")
    entries = await consumer.read()
    await bench.redis.config_resetstat()
    await consumer.take(entries)
    stats = await bench.redis.info("commandstats")
    assert stats["cmdstat_xpending"]["calls"] < 12
    assert await bench.redis.xpending(bench.names.deltas, GROUP) == {
        "pending": 0,
        "min": None,
        "max": None,
        "consumers": [],
    }
