"""A commit reports as ready exactly the responses that the low-water mark has passed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import GROUP
from handlers.core.identity import StreamKey
from service.pipeline.batch_builder import LARGE_ENTRY_BYTES
from service.ports.storage import SetupError
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
    """Treat each worker with pending entries as stuck."""
    monkeypatch.setattr(commit_plan, "STALLED_MS", -1)


@pytest.fixture
def not_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat no worker as stuck, even if this machine takes long between a read and a commit."""
    monkeypatch.setattr(commit_plan, "STALLED_MS", 3_600_000)


def reported(committed: Committed) -> list[str]:
    """Return the ids of the responses that a commit reports or loads."""
    loaded = [each.state.stream_key for each in committed.loaded]
    return sorted(key.value for key in (*loaded, *committed.ready))


async def test_a_closing_that_came_first_counts_though_it_is_stored_later(bench: Bench) -> None:
    """Otherwise a text would wait for a worker that holds an entry after the text's end."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 3000, delta(1, "a"), done("a"))
    closing = await bench.consumer("one").read()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    held = await bench.consumer("slow").read()
    await bench.publish_at(now_ms - 1000, COMPLETED)
    await bench.commit(await bench.consumer("two").read())
    await bench.consumer("one").process(closing)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]
    await bench.consumer("slow").process(held)
    assert await bench.member_scores("waiting") == {}


async def test_a_closing_that_came_first_counts_though_another_is_stored_later(bench: Bench) -> None:
    """Otherwise a second closing would hide the first one, and the text wait for entries after its end."""
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
    await bench.consumer("slow").process(held)
    assert await bench.member_scores("waiting") == {}


async def test_a_batch_finishes_what_others_have_left(bench: Bench) -> None:
    """Otherwise a text of a stopped worker would wait for a sweep, although batches arrive all the time."""
    await bench.publish(delta(1, "a"), done("a"))
    await bench.commit(await bench.consumer("stopped").read())
    await bench.publish(KEEPALIVE, response_id="resp_2")
    await bench.consumer("two").work()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]


@pytest.mark.usefixtures("not_stalled")
async def test_what_is_closed_after_a_pending_entry_is_not_reported(bench: Bench) -> None:
    """Otherwise each commit would load responses that cannot be finished yet."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    await bench.consumer("slow").read()
    await bench.publish_at(now_ms - 1000, delta(1, "a"), done("a"))
    assert reported(await bench.commit(await bench.consumer("one").read())) == []


@pytest.mark.parametrize("group", ["a-group", "z-group"])
@pytest.mark.parametrize("begin", ["0", "$"])
async def test_another_group_on_the_input_changes_nothing(bench: Bench, group: str, begin: str) -> None:
    """Otherwise a second program that reads the input would hold up all texts."""
    await bench.publish(KEEPALIVE)
    await bench.consumer("one").work()
    await bench.redis.xgroup_create(bench.names.deltas, group, id=begin)
    await bench.publish(delta(1, "a"), done("a"))
    await bench.consumer("one").work()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]


@pytest.mark.usefixtures("stalled")
async def test_a_response_is_reported_once_though_it_is_ready_in_two_ways(bench: Bench) -> None:
    """Otherwise the response would be loaded and settled twice."""
    at = await bench.now_ms()
    await bench.publish_at(at, KEEPALIVE)
    await bench.consumer("stuck").read()
    await bench.publish_at(at, CREATED, delta(1, "a"), done("a"))
    assert reported(await bench.commit(await bench.consumer("one").read())) == ["resp_1"]


@pytest.mark.usefixtures("stalled")
async def test_a_response_is_reported_once_though_two_of_its_parts_grew(bench: Bench) -> None:
    """Otherwise a response with several parts would be loaded once per part."""
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
    assert reported(await bench.commit(grown)) == ["resp_1"]


@pytest.mark.usefixtures("stalled")
async def test_only_closed_responses_are_reported_while_a_worker_is_stuck(bench: Bench) -> None:
    """Otherwise each commit would load all responses of its batch while one worker is stuck."""
    await bench.publish(KEEPALIVE)
    await bench.consumer("stuck").read()
    await bench.publish(CREATED, delta(1, "a"), delta(2, "b"), response_id="open")
    await bench.publish(CREATED, delta(1, "a"), done("a"), response_id="closed")
    committed = await bench.commit(await bench.consumer("one").read())
    assert reported(committed) == ["closed"]
    assert committed.low_water.stalled


@pytest.mark.usefixtures("stalled")
async def test_a_survey_reports_all_closed_while_a_worker_is_stuck(bench: Bench) -> None:
    """Otherwise a certain text would wait for a stuck worker."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    await bench.consumer("stuck").read()
    await bench.publish_at(now_ms - 1000, CREATED, delta(1, "a"), done("a"))
    await bench.commit(await bench.consumer("stopped").read())
    survey = await bench.storage.survey(1000)
    assert (survey.ready, survey.low_water.stalled) == ([StreamKey("response", "resp_1")], True)


@pytest.mark.usefixtures("not_stalled")
async def test_a_survey_reports_nothing_that_is_in_doubt(bench: Bench) -> None:
    """Otherwise each sweep would load all responses that wait for a worker with a long batch."""
    now_ms = await bench.now_ms()
    await bench.publish_at(now_ms - 2000, KEEPALIVE)
    await bench.consumer("slow").read()
    await bench.publish_at(now_ms - 1000, CREATED, delta(1, "a"), done("a"))
    await bench.commit(await bench.consumer("stopped").read())
    survey = await bench.storage.survey(1000)
    assert (list(survey.ready), survey.low_water.stalled) == ([], False)


async def test_a_text_waits_for_the_oldest_entry_in_hand(bench: Bench) -> None:
    """Otherwise the text would come out without the deltas of the slower of two workers."""
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
    await bench.consumer("slow").process(held)
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("ab", "verified")


async def test_texts_of_a_response_that_a_batch_knows_in_part_are_all_finished(bench: Bench) -> None:
    """Otherwise the end of a response would finish only the parts of its own batch."""
    second = {"content_index": 1}
    await bench.publish(delta(1, "a"), {**delta(2, "b"), **second})
    await bench.consumer("one").work()
    await bench.publish(done("a"), COMPLETED)
    committed = await bench.commit(await bench.consumer("two").read())
    assert (len(committed.loaded), committed.ready) == (0, [StreamKey("response", "resp_1")])
    await bench.consumer("sweeper").worker.sweep()
    assert sorted(text.text for text in await texts(bench.redis, bench.prefix)) == ["a", "b"]


BIG = {**KEEPALIVE, "x": "x" * LARGE_ENTRY_BYTES}


class Stopped:
    """A worker's storage that raises an error instead of committing."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.noted: dict[bytes, StreamKey] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def record_owners(self, owners: Mapping[bytes, StreamKey]) -> None:
        """Record the owners, and store them."""
        self.noted |= owners
        await self._storage.record_owners(owners)

    async def commit(self, *_args: Any, **_more: Any) -> Committed:
        """Raise an error, so that the worker stops."""
        raise _StoppedError


class _StoppedError(Exception):
    pass


async def hold(bench: Bench) -> list[RawEntry]:
    """Have a worker start to process the unread entries, stop before the commit, and return them."""
    consumer = bench.consumer("slow")
    entries = await consumer.read()
    stopped: Any = Stopped(bench.storage)
    with pytest.raises(_StoppedError):
        await bench.consumer("slow", storage=stopped).process(entries)
    return entries


async def test_no_text_waits_for_a_large_entry_of_another_response(bench: Bench) -> None:
    """Otherwise arrays of thousands of events would hold up the texts of all other responses."""
    at = await bench.now_ms()
    await bench.publish_at(at - 3000, BIG, response_id="large")
    held = await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(1, "a"), done("b"))
    await bench.consumer("one").work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("b", "repaired")
    await bench.consumer("slow").process(held)
    assert not await bench.redis.exists(bench.names.name("owners"))


async def test_the_owner_of_an_entry_that_another_worker_takes_over_is_forgotten(bench: Bench) -> None:
    """Otherwise owners of entries that are small by themselves would stay, as nobody else looks for them."""
    await bench.publish(BIG, delta(1, "a"))
    large, small = await hold(bench)
    second = bench.consumer("two")
    await second.worker.process(second.worker.builder([small]), {small.id: 2})
    assert await bench.redis.hkeys(bench.names.name("owners")) == [large.id]


async def test_a_text_waits_for_a_large_entry_of_its_own(bench: Bench) -> None:
    """Otherwise the text would come out without the deltas of its own large array."""
    at = await bench.now_ms()
    large = [delta(1, "a" * LARGE_ENTRY_BYTES), delta(2, "b")]
    await bench.publish_at(at - 3000, json.dumps(large))
    held = await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(3, "c"), done("a" * LARGE_ENTRY_BYTES + "bc"))
    await bench.publish_at(at - 1000, CREATED, delta(1, "a"), done("b"), response_id="resp_2")
    await bench.consumer("one").work()
    await bench.consumer("one").worker.sweep()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["b"]
    await bench.consumer("slow").process(held)
    (_, text) = await texts(bench.redis, bench.prefix)
    assert (text.response_id, text.integrity, text.delta_count) == ("resp_1", "verified", 3)


async def test_a_text_waits_for_a_large_entry_of_an_unknown_response(bench: Bench) -> None:
    """Otherwise a text would come out without the events of a large entry of an unknown response."""
    at = await bench.now_ms()
    await add(bench.redis, bench.names.deltas, {"event": json.dumps(BIG)}, f"{at - 3000}-0")
    held = await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(1, "a"), done("b"))
    await bench.consumer("one").work()
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer("slow").process(held)
    assert len(await texts(bench.redis, bench.prefix)) == 1


async def test_a_text_waits_for_what_is_older_than_a_large_entry(bench: Bench) -> None:
    """Otherwise one large entry would hide older pending entries that may belong to the text."""
    at = await bench.now_ms()
    await bench.publish_at(at - 4000, BIG, response_id="large")
    await hold(bench)
    await bench.publish_at(at - 3000, delta(1, "a"))
    older = await bench.consumer("other").read()
    await bench.publish_at(at - 2000, CREATED, delta(2, "b"), COMPLETED)
    await bench.consumer("one").work()
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer("other").process(older)
    (text,) = await texts(bench.redis, bench.prefix)
    assert text.text == "ab"


@pytest.mark.usefixtures("stalled")
async def test_a_worker_that_is_stuck_with_a_large_entry_holds_up_nothing_certain(bench: Bench) -> None:
    """Otherwise certain texts of a response would wait for a worker that hangs with a large entry."""
    at = await bench.now_ms()
    await bench.publish_at(at - 3000, BIG)
    await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(1, "a"), done("a"))
    await bench.publish_at(at - 1000, CREATED, delta(1, "b"), done("c"), response_id="resp_2")
    await bench.consumer("one").work()
    await bench.consumer("one").worker.sweep()
    assert sorted(text.text for text in await texts(bench.redis, bench.prefix)) == ["a", "c"]


async def test_a_text_does_not_wait_for_a_later_large_entry_of_its_own(bench: Bench) -> None:
    """Otherwise a text would wait for large entries of its response that come after its end."""
    at = await bench.now_ms()
    await bench.publish_at(at - 3000, CREATED, delta(1, "a"), done("b"))
    closing = await bench.consumer("one").read()
    await bench.publish_at(at - 1000, BIG)
    await hold(bench)
    await bench.consumer("one").process(closing)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["b"]


@pytest.mark.usefixtures("not_stalled")
async def test_a_response_with_a_large_entry_does_not_end_a_survey(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise ready responses behind those with large entries would wait for further sweeps."""
    monkeypatch.setattr(commit_plan, "MAX_RESPONSES", 3)
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
    """Otherwise a commit would acknowledge a batch, and then report that it has failed."""
    await bench.redis.set(bench.names.name("owners"), "x", ex=60)
    await bench.publish(delta(1, "a"))
    entries = await bench.consumer("one").read()
    with pytest.raises(SetupError, match="owners"):
        await bench.commit(entries)
    assert (await bench.redis.xpending(bench.names.deltas, GROUP))["pending"] == 1


@pytest.mark.usefixtures("stalled")
async def test_a_text_in_doubt_waits_for_the_oldest_large_entry_of_its_own(bench: Bench) -> None:
    """Otherwise a text would come out without a stuck worker's entry, once a later entry of it is noted."""
    at = await bench.now_ms()
    await bench.publish_at(at - 3000, BIG)
    held = await hold(bench)
    await bench.publish_at(at - 2000, CREATED, delta(1, "a"), done("b"))
    await bench.consumer("one").work()
    await bench.publish_at(at - 1000, BIG)
    await hold(bench)
    await bench.consumer("one").worker.sweep()
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer("slow").process(held)
    await bench.consumer("one").worker.sweep()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["b"]


async def test_entries_of_one_worker_in_another_batch_cost_no_lookups(bench: Bench) -> None:
    """Otherwise each entry would be looked up separately if a large one is processed apart."""
    await bench.publish(delta(1, "a"))
    await bench.publish(BIG)
    await bench.publish(*[delta(number, "b") for number in range(2, 40)])
    consumer = bench.consumer("one")
    entries = await consumer.read()
    await bench.redis.config_resetstat()
    await consumer.process(entries)
    stats = await bench.redis.info("commandstats")
    assert stats["cmdstat_xpending"]["calls"] < 12
    assert await bench.redis.xpending(bench.names.deltas, GROUP) == {
        "pending": 0,
        "min": None,
        "max": None,
        "consumers": [],
    }
