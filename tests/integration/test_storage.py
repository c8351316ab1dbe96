"""Tests of the scripts and the worker around them, step by step: two consumers in one process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import GROUP
from handlers import BUILT_IN
from handlers.core.identity import StreamKey
from handlers.core.routing import RoutingTable
from service.pipeline.settling import settle
from service.storage import commit_plan, settle_plan
from tests.bench import COMPLETED, KEEPALIVE, Bench, delta, done
from tests.waiting import wait_until
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom.messages import AssembledText
    from service.ports.storage import RawEntry


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench on a prefix of its own."""
    return Bench(redis, prefix)


async def test_a_batch_taken_twice_changes_nothing_the_second_time(bench: Bench) -> None:
    """A batch that is committed again after a lost reply has no second effect."""
    await bench.publish(
        delta(1, "a", "refusal"),
        "{broken",
        KEEPALIVE,
        done("a", "refusal"),
        delta(2, "late", "refusal"),
    )
    entries = await bench.consumer("one").read()
    for _ in range(3):
        await bench.consumer().process(entries)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]
    assert len(await alerts(bench.redis, bench.prefix)) == 2
    assert len(await dead_letters(bench.redis, bench.prefix)) == 1
    assert await counts(bench.redis, bench.prefix) == {"type:keepalive": 1, "late": 1}


async def test_an_ignored_event_of_a_response_that_its_batch_opens_is_its_last_activity(bench: Bench) -> None:
    """Note a keepalive long after the first delta. Otherwise the response might be given up too early."""
    await bench.publish_at(1_000, delta(1, "a"))
    await bench.publish_at(60_000, KEEPALIVE)
    await bench.consumer().work()
    assert await bench.member_scores("open") == {"response:resp_1": 60_000}


async def test_entries_taken_over_by_another_worker_are_counted_once(bench: Bench) -> None:
    """A worker that was suspended does not count entries again that others have committed since."""
    await bench.publish(*[KEEPALIVE] * 4, "{broken")
    entries = await bench.consumer("stopped").read()
    await bench.consumer().process(entries[2:])
    await bench.consumer().process(entries)
    assert await counts(bench.redis, bench.prefix) == {"type:keepalive": 4}
    assert len(await dead_letters(bench.redis, bench.prefix)) == 1


async def test_a_text_in_doubt_waits_for_the_other_workers_deltas(bench: Bench) -> None:
    """A text waits for earlier entries of other workers.

    Otherwise it would be `repaired`, or lack its beginning.
    """
    await bench.publish(delta(1, "Let "), delta(2, "me "), delta(3, "see."), done("Let me see."), COMPLETED)
    first, second = await bench.consumer("one").read(2), await bench.consumer("two").read(3)
    await bench.consumer().process(second)
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer().process(first)
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity, text.delta_count) == ("Let me see.", "verified", 3)


async def test_repeats_in_other_hands_are_counted_whoever_is_first(bench: Bench) -> None:
    """`duplicate_count` does not depend on the order in which workers commit."""
    await bench.publish(delta(1, "a"), delta(1, "a"), done("a"))
    repeat, rest = await bench.consumer("one").read(1), await bench.consumer("two").read(2)
    await bench.consumer().process(rest)
    await bench.consumer().process(repeat)
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.delta_count, text.duplicate_count) == (1, 1)


async def test_a_certain_text_does_not_wait_for_a_stuck_worker(bench: Bench) -> None:
    """Texts that are certain come out although a dead worker still holds an entry; others wait."""
    await bench.publish(KEEPALIVE)
    await bench.consumer("dead").read()
    created = {"type": "response.created", "response": {"id": "resp", "model": "m"}}
    await bench.publish(created, delta(1, "sure"), done("sure"))
    await bench.publish(created, delta(1, "in"), done("in doubt"), response_id="resp_2")
    await bench.consumer("alive").work()
    survivor = bench.consumer().worker

    async def sweep_finds_it() -> bool:
        await survivor.sweep()
        return bool(await texts(bench.redis, bench.prefix))

    await wait_until(sweep_finds_it, message="the certain text is finished")
    await survivor.sweep()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["sure"]


async def test_what_a_crashed_worker_had_committed_is_finished_by_the_next(bench: Bench) -> None:
    """A worker that crashes between the two scripts loses nothing: the next worker settles its texts."""
    await bench.publish(delta(1, "a"), done("a"))
    committed = await bench.storage.commit(bench.batch(await bench.consumer("crashed").read()).commit)
    assert [loaded.state.stream_key for loaded in committed.loaded] == [StreamKey("response", "resp_1")]
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer().worker.sweep()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]


async def test_a_commit_that_would_overflow_a_part_writes_nothing(redis: Redis, prefix: str) -> None:
    """A commit that would exceed a part's limit writes and acknowledges nothing: a script has no rollback."""
    bench = Bench(redis, prefix, max_part_bytes=1024)
    await bench.publish(delta(1, "x" * 2000), KEEPALIVE)
    committed = await bench.storage.commit(bench.batch(await bench.consumer("one").read()).commit)
    assert len(committed.overflowing) == 1
    assert (await redis.xpending(bench.names.deltas, GROUP))["pending"] == 2
    assert await redis.keys(f"{prefix}*") == [bench.names.deltas.encode()]


async def test_a_response_without_our_texts_is_soon_forgotten(bench: Bench) -> None:
    """A response without texts is remembered for minutes only.

    Otherwise most responses would fill Redis for a week.
    """
    created = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}
    item = {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": {"type": "message", "content": []},
    }
    await bench.publish(created, item, COMPLETED)
    await bench.consumer().work()
    state = bench.names.name("state:response:resp_1")
    assert 0 < await bench.redis.pttl(state) <= settle_plan.OVER_MS
    rates = await bench.redis.keys(bench.names.name("rate*:*"))
    assert set(await bench.redis.keys(f"{bench.prefix}*")) == {
        bench.names.deltas.encode(),
        state.encode(),
        *rates,
    }


async def test_a_response_that_nobody_counts_leaves_nothing_behind(redis: Redis, prefix: str) -> None:
    """A response without texts leaves no keys at all if rates are off."""
    bench = Bench(redis, prefix, spike_window=0)
    created = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}
    await bench.publish(created, COMPLETED)
    await bench.consumer().work()
    assert await redis.keys(f"{prefix}*") == [bench.names.deltas.encode()]


async def test_every_key_expires_or_is_one_of_the_bounded_few(bench: Bench) -> None:
    """Keys expire, or belong to a fixed set of keys with bounded size."""
    await bench.publish(delta(1, "a", "refusal"), "{broken", KEEPALIVE)
    await bench.consumer().work()
    await bench.publish(delta(2, "b"), done("b"), COMPLETED, response_id="resp_2")
    await bench.consumer().work()
    names = bench.names
    bounded = {
        name.encode()
        for name in (
            names.deltas,
            names.assembled,
            names.alerts,
            names.dead_letters,
            names.name("open"),
            names.name("counts"),
            names.name("counted-types"),
        )
    }
    keys = set(await bench.redis.keys(f"{bench.prefix}*"))
    assert keys > bounded
    for key in keys - bounded:
        assert await bench.redis.pttl(key) > 0, key


async def test_unknown_types_are_counted_up_to_a_bound(bench: Bench) -> None:
    """The number of counted event types is bounded; further types are counted as `(other)`."""
    for first in range(0, 1200, 400):
        events = [{"type": f"made.up.{n}"} for n in range(first, first + 400)]
        await bench.publish(*events)
        await bench.consumer().work()
    counted = await counts(bench.redis, bench.prefix)
    assert len(counted) <= 1001
    assert sum(counted.values()) == 1200


async def test_a_group_that_was_flushed_is_made_again(bench: Bench) -> None:
    """A worker recreates the consumer group after FLUSHALL."""
    await bench.publish(delta(1, "a"))
    entries = await bench.consumer("one").read()
    await bench.redis.delete(bench.names.deltas)
    await bench.consumer().process(entries)
    await bench.publish(delta(1, "b"), done("b"), response_id="resp_2")
    await bench.consumer().work()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["b"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
async def test_workers_may_commit_in_any_order(bench: Bench, order: tuple[int, ...]) -> None:
    """The order in which workers commit affects nothing but times."""
    created = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}
    words = [delta(n, f"{n} ", "refusal") for n in range(6)]
    await bench.publish(created, *words, done("0 1 2 3 4 5 ", "refusal"), COMPLETED, tenant="acme")
    hands = [await bench.consumer(f"worker {n}").read(3) for n in range(3)]
    for hand in order:
        await bench.consumer().process(hands[hand])
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity, text.model, text.tenant) == ("0 1 2 3 4 5 ", "verified", "m", "acme")
    assert (text.delta_count, text.first_sequence_number, text.last_sequence_number) == (6, 0, 5)
    raised = [alert.type for alert in await alerts(bench.redis, bench.prefix)]
    assert raised == ["deltaloom.refusal.opened", "deltaloom.refusal.finished"]
    assert await bench.redis.exists(bench.names.name("open"), bench.names.name("waiting")) == 0


def unnumbered(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event without its sequence number."""
    return {name: value for name, value in event.items() if name != "sequence_number"}


async def test_without_numbers_a_text_is_not_certain(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text without sequence numbers is never certain, since a stuck worker may hold a repeated delta."""
    monkeypatch.setattr(commit_plan, "STALLED_MS", -1)
    events = [delta(1, "a"), delta(2, "b"), delta(2, "b"), done("ab")]
    context = {"model": "m", "safety_identifier": "u"}
    await bench.publish(*map(unnumbered, events), **context)
    first, repeat, end = [await bench.consumer(f"worker {n}").read(n) for n in (2, 1, 1)]
    for batch in (first, end, repeat):
        await bench.consumer().process(batch)
    (text,) = await texts(bench.redis, bench.prefix)
    assert text.integrity == "repaired"


@pytest.mark.parametrize("batches", [1, 2])
async def test_a_copy_is_not_taken_for_its_neighbours(bench: Bench, batches: int) -> None:
    """A copy at a shifted position does not give an empty text the text of its neighbour."""
    items = [("item_0", ""), ("item_1", "x")]
    output = [
        {"type": "reasoning", "id": item, "content": [{"type": "reasoning_text", "text": text}]}
        for item, text in items
    ]
    events = [
        {**delta(n, text), "item_id": item, "output_index": n} for n, (item, text) in enumerate(items, 1)
    ]
    await bench.publish(*events, {**done("x"), "item_id": "item_1", "output_index": 2})
    if batches == 2:
        await bench.consumer().work()
    await bench.publish({"type": "response.completed", "response": {"output": output}})
    await bench.consumer().work()
    got = [(text.output_index, text.text) for text in await texts(bench.redis, bench.prefix)]
    assert sorted(got) == [(1, ""), (2, "x")]


async def test_a_batch_of_a_worker_that_slept_too_long_changes_nothing(bench: Bench) -> None:
    """A batch that is committed long after others have settled it changes nothing."""
    await bench.publish(delta(1, "a", "refusal"), done("a", "refusal"), COMPLETED)
    batch = await bench.consumer("asleep").read()
    await bench.consumer("awake").process(batch)
    await bench.redis.delete(bench.names.name("state:response:resp_1"))
    await bench.consumer("asleep").process(batch)
    assert len(await texts(bench.redis, bench.prefix)) == 1
    assert len(await alerts(bench.redis, bench.prefix)) == 2


async def test_a_log_lives_as_long_as_something_comes(bench: Bench) -> None:
    """New deltas extend the life of a log. Otherwise a long stream would lose its beginning."""
    await bench.publish(delta(1, "a"))
    await bench.consumer().work()
    (log,) = await bench.redis.keys(f"{bench.prefix}:log:*")
    await bench.redis.pexpire(log, 5000)
    await bench.publish(delta(2, "b"))
    await bench.consumer().work()
    assert await bench.redis.pttl(log) > 5000


async def test_one_part_that_cannot_be_read_holds_up_no_other(bench: Bench) -> None:
    """A log that cannot be decoded blocks no other text."""
    await bench.publish(delta(1, "a"), response_id="broken")
    await bench.consumer().work()
    (log,) = await bench.redis.keys(f"{bench.prefix}:log:*")
    await bench.redis.set(log, b"something else", keepttl=True)
    await bench.publish({**done("a")}, response_id="broken")
    await bench.publish(delta(1, "b"), done("b"))
    await bench.consumer().work()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["b"]


async def test_a_part_of_too_many_deltas(redis: Redis, prefix: str) -> None:
    """The number of deltas of a part is limited too, since empty deltas use memory without adding text."""
    bench = Bench(redis, prefix, max_part_fragments=5)
    for first in (0, 4):
        await bench.publish(*(delta(number, "") for number in range(first, first + 4)))
        await bench.consumer().work()
    await bench.publish(done("whole"))
    await bench.consumer().work()
    letters = await dead_letters(redis, prefix)
    assert {letter.reason for letter in letters} == {"oversized"}
    assert all(
        "reasoning of this response would exceed 8388608 bytes or 5 deltas" in x.error for x in letters
    )
    assert len(letters) == 4
    assert [text.text for text in await texts(redis, prefix)] == ["whole"]


async def test_an_array_of_too_many_events(redis: Redis, prefix: str) -> None:
    """An array with too many events becomes a dead letter, since it could block a worker for minutes."""
    bench = Bench(redis, prefix, max_array_length=3)
    await bench.publish(json.dumps([KEEPALIVE] * 4), json.dumps([KEEPALIVE] * 3))
    await bench.consumer().work()
    (letter,) = await dead_letters(redis, prefix)
    assert (letter.reason, letter.error) == ("oversized", "the entry's array has more than 3 events")
    assert await counts(redis, prefix) == {"type:keepalive": 3}


async def test_sent_context_is_sent_again_when_it_is_due(bench: Bench) -> None:
    """A worker sends an unchanged context again in time to keep the state from expiring."""
    consumer = bench.consumer()
    await bench.publish(delta(1, "a"))
    await consumer.work()
    (log,) = await bench.redis.keys(f"{bench.prefix}:log:*")
    await bench.redis.pexpire(log, 5000)
    await bench.publish(delta(2, "b"))
    await consumer.work()
    assert await bench.redis.pttl(log) <= 5000, "it was sent a moment ago"
    storage: Any = consumer.worker._storage  # noqa: SLF001
    response = storage._sent.get(StreamKey("response", "resp_1"))  # noqa: SLF001
    (part,) = response.parts.values()
    part.due = 0
    await bench.publish(delta(3, "c"))
    await consumer.work()
    assert await bench.redis.pttl(log) > 5000


@pytest.mark.parametrize("lost", ["log", "[ls]*"])
async def test_sent_context_that_is_lost_is_sent_again(bench: Bench, lost: str) -> None:
    """A worker sends context and item id again after the server has lost them."""
    consumer = bench.consumer()
    await bench.publish(delta(1, "a"), tenant="acme")
    await consumer.work()
    for key in await bench.redis.keys(f"{bench.prefix}:{lost}:*"):
        await bench.redis.delete(key)
    await bench.publish({**delta(2, "b"), "content_index": 1}, delta(2, "b"), done("ab"), tenant="acme")
    await consumer.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.tenant) == ("ab", "acme")
    assert text.item_id == "item_1"


async def test_the_earliest_item_id_counts_whoever_stores_it_first(bench: Bench) -> None:
    """`item_id` is that of the earliest event, whichever worker commits first."""
    first, second = {**delta(1, "a"), "item_id": "it_1"}, {**delta(2, "b"), "item_id": "it_2"}
    third = {**done("ab"), "item_id": "it_3"}
    await bench.publish(first, second, third)
    one, two = bench.consumer("one"), bench.consumer("two")
    batches = [await one.read(1), await two.read(1), await one.read(1)]
    await two.process(batches[1])
    await one.process(batches[2])
    await one.process(batches[0])
    (text,) = await texts(bench.redis, bench.prefix)
    assert text.item_id == "it_1"


async def test_a_text_that_has_grown_since_it_was_read_is_read_again(bench: Bench) -> None:
    """A settlement of a text that has grown since it was loaded writes nothing, and is repeated."""
    await bench.publish(delta(1, "a"), done("a"))
    batch = bench.batch(await bench.consumer("one").read())
    committed = await bench.storage.commit(batch.commit)
    await bench.publish(delta(2, "late"))
    await bench.storage.commit(bench.batch(await bench.consumer("two").read()).commit)
    table = RoutingTable(BUILT_IN.values())
    assert (
        await settle(bench.storage, table, committed.loaded, committed.low_water, committed.replication_id)
        == 0
    )
    await bench.consumer().worker.sweep()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("a", "verified")
    assert await counts(bench.redis, bench.prefix) == {"late": 1}


async def test_fragments_of_a_long_part_are_counted_from_where_it_was_left(redis: Redis, prefix: str) -> None:
    """The limit on deltas is checked from a stored position.

    Otherwise each batch would read the whole log.
    """
    bench = Bench(redis, prefix, max_part_fragments=300)
    consumer = bench.consumer()
    for first in range(0, 300, 100):
        await bench.publish(*(delta(number, "four") for number in range(first, first + 100)))
        await consumer.work()
    assert await dead_letters(redis, prefix) == []
    (state,) = await redis.keys(f"{prefix}:state:*")
    log = next(iter(await redis.keys(f"{prefix}:log:*")))
    stored: Any = await redis.hget(state, "size:0:0:reasoning")
    size, fragments = map(int, stored.split(b":"))
    assert fragments == 200
    assert 0 < size < await redis.strlen(log)
    await bench.publish(delta(300, "four"), done("four" * 300))
    await consumer.work()
    assert [letter.reason for letter in await dead_letters(redis, prefix)] == ["oversized"]
    assert [text.text for text in await texts(redis, prefix)] == ["four" * 300]
    assert await redis.hget(state, "size:0:0:reasoning") is None


@pytest.mark.parametrize("lost", ["log", "[ls]*"])
async def test_a_lost_log_is_sent_again_with_its_state(bench: Bench, lost: str) -> None:
    """A chunk for a lost log is sent again with the part's state. Otherwise the log would never expire."""
    consumer = bench.consumer()
    await bench.publish(delta(1, "a"))
    await consumer.work()
    for key in await bench.redis.keys(f"{bench.prefix}:{lost}:*"):
        await bench.redis.delete(key)
    await bench.publish(delta(2, "b"))
    await consumer.work()
    (log,) = await bench.redis.keys(f"{bench.prefix}:log:*")
    assert await bench.redis.pttl(log) > 0
    await bench.publish(done("b"))
    await consumer.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity, text.item_id) == ("b", "verified", "item_1")


async def test_the_last_delta_makes_a_text_certain_while_a_worker_is_stuck(bench: Bench) -> None:
    """A commit with deltas only reports texts that became certain.

    Otherwise they would wait for the stuck worker.
    """
    await bench.publish(KEEPALIVE)
    await bench.consumer("dead").read()
    created = {"type": "response.created", "response": {"id": "resp", "model": "m"}}
    await bench.publish(created, delta(1, "su"))
    alive, other = bench.consumer("alive"), bench.consumer("other")
    await alive.work()
    await bench.publish(delta(2, "re"))
    missing = await alive.read()
    await bench.publish(done("sure"))
    await other.work()
    assert await texts(bench.redis, bench.prefix) == []
    await wait_until_stalled(bench)
    await alive.process(missing)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["sure"]


async def text_that_waits_for(bench: Bench, held: list[RawEntry]) -> AssembledText:
    """Return the only text, which comes out only after a stuck worker processes these entries."""
    await wait_until_stalled(bench)
    one = bench.consumer("one")
    await one.work()
    await one.worker.sweep()
    assert await texts(bench.redis, bench.prefix) == []
    await bench.consumer("stuck").process(held)
    (text,) = await texts(bench.redis, bench.prefix)
    return text


async def wait_until_stalled(bench: Bench) -> None:
    """Wait until the holder of the oldest pending entry counts as stuck."""

    async def stalled() -> bool:
        oldest: Any = await bench.redis.xpending_range(bench.names.deltas, GROUP, "-", "+", 1)
        return bool(oldest[0]["time_since_delivered"] > commit_plan.STALLED_MS)

    await wait_until(stalled, message="the dead worker counts as stuck")


async def test_a_small_log_takes_no_more_room_than_it_needs(bench: Bench) -> None:
    """A small log is rewritten, since a string that Redis appends to takes up to twice its size."""
    consumer = bench.consumer()
    for number in range(60):
        await bench.publish(delta(number, "x" * 100))
        await consumer.work()
        (log,) = await bench.redis.keys(f"{bench.prefix}:log:*")
        size = await bench.redis.strlen(log)
        used: Any = await bench.redis.memory_usage(log)
        assert size > 2000 or used < 1.25 * size + 200
    await bench.publish(done("x" * 6000))
    await consumer.work()
    assert [text.integrity for text in await texts(bench.redis, bench.prefix)] == ["verified"]


async def test_a_final_copy_is_not_certain_while_the_items_end_may_be_in_other_hands(bench: Bench) -> None:
    """A final copy is not certain while an earlier end without text may be pending in a stuck worker."""
    item_done = {"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning"}}
    item = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "sure"}]}
    completed = {"type": "response.completed", "response": {"model": "m", "output": [item]}}
    created = {"type": "response.created", "response": {"id": "resp", "model": "m"}}
    await bench.publish(created, delta(1, "sure"))
    await bench.consumer("one").work()
    await bench.publish(item_done)
    held = await bench.consumer("stuck").read()
    await bench.publish(completed)
    text = await text_that_waits_for(bench, held)
    assert (text.text, text.status, text.integrity) == ("sure", "completed", "unverified")


async def test_a_text_that_began_after_the_end_of_its_response_is_in_doubt(bench: Bench) -> None:
    """A text that begins after the end of its response waits, since the final copy takes precedence."""
    item = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "sure"}]}
    completed = {"type": "response.completed", "response": {"model": "m", "output": [item]}}
    created = {"type": "response.created", "response": {"id": "resp", "model": "m"}}
    await bench.publish(created)
    await bench.consumer("one").work()
    await bench.publish(KEEPALIVE)
    held = await bench.consumer("stuck").read()
    await bench.publish(completed, delta(1, "sure"), done("sure"))
    text = await text_that_waits_for(bench, held)
    assert (text.text, text.integrity, text.delta_count) == ("sure", "repaired", 0)


async def test_what_a_stuck_worker_holds_of_a_text_that_is_certain_is_late(bench: Bench) -> None:
    """A pending delta of a stuck worker does not hold up a certain text; it is counted as late."""
    created = {"type": "response.created", "response": {"id": "resp", "model": "m"}}
    await bench.publish(created)
    await bench.consumer("one").work()
    await bench.publish({**delta(1, "?"), "sequence_number": None})
    held = await bench.consumer("stuck").read()
    await wait_until_stalled(bench)
    await bench.publish(delta(1, "sure"), done("sure"))
    await bench.consumer("one").work()
    await bench.consumer("stuck").process(held)
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity, text.delta_count) == ("sure", "verified", 1)
    assert await counts(bench.redis, bench.prefix) == {"late": 1}


async def test_a_part_too_large_for_its_limit_leaves_nothing_open(redis: Redis, prefix: str) -> None:
    """A response without any stored event does not count as open."""
    bench = Bench(redis, prefix, max_part_bytes=1024)
    await bench.publish(delta(1, "x" * 2000))
    await bench.consumer().work()
    assert [letter.reason for letter in await dead_letters(redis, prefix)] == ["oversized"]
    assert await redis.zcard(f"{prefix}:open") == 0


async def test_entries_may_have_any_id(bench: Bench) -> None:
    """An entry may have the highest possible id."""
    await bench.publish(delta(1, "a"))
    body = json.dumps(delta(2, "b"))
    fields: Any = {"event": body, "response_id": "resp_1"}
    await bench.redis.xadd(bench.names.deltas, fields, id=f"{2**64 - 1}-1")
    await bench.consumer().work()
    assert await bench.pending() == {}


async def test_a_prefix_may_be_beyond_ascii(redis: Redis, prefix: str) -> None:
    """A prefix may contain non-ASCII characters, although scripts count bytes."""
    await test_the_last_delta_makes_a_text_certain_while_a_worker_is_stuck(Bench(redis, f"{prefix}é"))


async def test_a_context_that_changes_with_every_entry_is_sent_once(bench: Bench) -> None:
    """A context value that differs in each entry is stored once.

    Otherwise memory would grow with each event.
    """
    consumer = bench.consumer()
    for number in range(5):
        await bench.publish(delta(number, "a"), traceparent=f"00-{number:032x}-{1:016x}-01")
        await consumer.work()
    storage: Any = consumer.worker._storage  # noqa: SLF001
    response = storage._sent.get(StreamKey("response", "resp_1"))  # noqa: SLF001
    assert len(response._since) == 1  # noqa: SLF001
    await bench.publish(done("aaaaa"))
    await consumer.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert text.traceparent == f"00-{0:032x}-{1:016x}-01"


async def test_a_response_without_context_blocks_nothing(bench: Bench) -> None:
    """A `response.created` event without context must not make the commit repeat forever."""
    created = {"type": "response.created", "response": {"id": "resp_1"}}
    consumer = bench.consumer()
    for number in range(2):
        await bench.publish(created, delta(number, "a"))
        await consumer.work()
    await bench.publish(created, response_id="resp_2")
    await consumer.work()
    assert await bench.pending() == {}


LATE_TO_A_COPY = [
    {
        "type": "response.completed",
        "response": {
            "output": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "abc"}]}]
        },
    },
    delta(1, "zz"),
]


@pytest.mark.parametrize("more", [[], [done("zz")]], ids=["a delta", "a delta and its end"])
@pytest.mark.parametrize("size", [1, 10])
async def test_what_comes_after_a_final_copy_is_late_however_it_is_read(
    bench: Bench, more: list[dict[str, Any]], size: int
) -> None:
    """Deltas after a final copy are counted as late, no matter how entries are batched."""
    await bench.publish(*LATE_TO_A_COPY, *more)
    consumer = bench.consumer()
    while entries := await consumer.read(size):
        await consumer.process(entries)
    await consumer.worker.sweep()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity, text.delta_count) == ("abc", "repaired", 0)
    assert (await counts(bench.redis, bench.prefix))["late"] == 1


@pytest.mark.parametrize("cut", [[[0, 1, 2]], [[0, 2], [1]], [[1], [0, 2]], [[2], [0, 1]], [[0], [1], [2]]])
async def test_the_first_item_id_counts_though_an_earlier_event_has_none(
    bench: Bench, cut: list[list[int]]
) -> None:
    """`item_id` comes from the first event that has one, no matter how entries are batched."""
    nobody, second, third = (
        {**delta(n, "a"), "item_id": name} for n, name in enumerate([None, "it_2", "it_3"])
    )
    await bench.publish(nobody, second, third)
    consumer, entries = bench.consumer(), await bench.consumer().read(3)
    for some in cut:
        await consumer.process([entries[index] for index in some])
    await bench.publish({**done("aaa"), "item_id": "it_4"})
    await consumer.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.item_id) == ("aaa", "it_2")


async def test_a_repeat_of_created_makes_no_earlier_text_certain(bench: Bench) -> None:
    """A repeated `response.created` makes no text certain, since the first one may have more context."""
    created = {"type": "response.created", "response": {"id": "resp_1", "safety_identifier": "user"}}
    await bench.publish(created, model="m")
    held = await bench.consumer("stuck").read()
    await bench.publish(delta(1, "sure"), done("sure"), created, model="m")
    text = await text_that_waits_for(bench, held)
    assert (text.text, text.safety_identifier) == ("sure", "user")


@pytest.mark.parametrize("batches", [1, 4])
async def test_a_text_whose_item_ids_differ_waits_for_its_first_event(bench: Bench, batches: int) -> None:
    """A text with several item ids waits for its first event, even if that event was repeated."""
    created = {"type": "response.created", "response": {"id": "resp", "model": "m"}}
    first, last = ({**delta(n, text), "item_id": f"it_{n}"} for n, text in ((1, "su"), (2, "re")))
    await bench.publish(first)
    held = await bench.consumer("stuck").read()
    rest = [created, last, first, {**done("sure"), "item_id": "it_2"}]
    one = bench.consumer("one")
    for events in [rest] if batches == 1 else [[event] for event in rest]:
        await bench.publish(*events)
        await one.work()
    text = await text_that_waits_for(bench, held)
    assert (text.text, text.item_id, text.duplicate_count) == ("sure", "it_1", 1)
