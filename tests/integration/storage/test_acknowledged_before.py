"""Batches with entries that another worker has acknowledged before: only the new entries have effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bench import COMPLETED, KEEPALIVE, delta, done
from tests.workers import counts, dead_letters, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.ports.storage import RawEntry
    from tests.bench import Bench

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}


async def take_the_first_elsewhere(bench: Bench, count: int = 1) -> None:
    """Have another worker acknowledge the first entries of a batch, then take the whole batch."""
    batch = await bench.consumer("stopped").read()
    await bench.consumer("other").process(batch[:count])
    await bench.consumer("stopped").process(batch)


async def test_a_closing_is_stored_though_its_deltas_were_acknowledged_before(bench: Bench) -> None:
    """Otherwise the closing would be acknowledged without effect, and its text abandoned."""
    await bench.publish(delta(1, "a"), done("a"))
    await take_the_first_elsewhere(bench)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]


async def test_an_ending_is_stored_though_its_deltas_were_acknowledged_before(bench: Bench) -> None:
    """Otherwise the end of the response would be lost, and its text abandoned."""
    await bench.publish(delta(1, "a"), COMPLETED)
    await take_the_first_elsewhere(bench)
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.status) == ("a", "completed")


async def test_a_delta_is_stored_though_the_rest_of_its_batch_was_acknowledged_before(bench: Bench) -> None:
    """Otherwise the only new delta of the response would be lost."""
    await bench.publish(CREATED, delta(1, "a"))
    await take_the_first_elsewhere(bench)
    await bench.publish(done("a"))
    await bench.consumer().work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("a", "verified")


async def test_deltas_of_a_known_part_are_stored_if_any_is_new(bench: Bench) -> None:
    """Otherwise a growing text would lose the deltas that only this worker holds."""
    await bench.publish(delta(1, "a"))
    consumer = bench.consumer("stopped")
    await consumer.work()
    await bench.publish(delta(2, "b"), delta(3, "c"))
    batch = await consumer.read()
    await bench.consumer("other").process(batch[:1])
    await consumer.process(batch)
    await bench.publish(done("abc"))
    await consumer.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity, text.delta_count) == ("abc", "verified", 3)


async def test_deltas_of_a_known_part_leave_no_log_behind_if_none_is_new(bench: Bench) -> None:
    """Otherwise a worker that was suspended would append to texts that are finished."""
    await bench.publish(delta(1, "a"))
    asleep = bench.consumer("asleep")
    await asleep.work()
    await bench.publish(delta(2, "b"))
    batch = await asleep.read()
    await bench.consumer("awake").process(batch)
    (log,) = await bench.redis.keys(f"{bench.prefix}:log:*")
    before = await bench.redis.strlen(log)
    await asleep.process(batch)
    assert await bench.redis.strlen(log) == before


@pytest.mark.parametrize("before", [1, 2])
async def test_late_events_are_counted_once(bench: Bench, before: int) -> None:
    """Otherwise an event of two workers' batches would count as two late ones."""
    await bench.publish(delta(1, "a"), done("a"))
    await bench.consumer().work()
    await bench.publish(*(delta(number, "late") for number in range(2, 6)))
    await take_the_first_elsewhere(bench, before)
    assert await counts(bench.redis, bench.prefix) == {"late": 4}


async def test_late_events_of_two_parts_are_counted_apart(bench: Bench) -> None:
    """Otherwise events of one part would be attributed to another, and counted or left out."""
    second = {"content_index": 1}
    await bench.publish(delta(1, "a"), done("a"), {**delta(2, "b"), **second}, {**done("b"), **second})
    await bench.consumer().work()
    late = [
        delta(3, "late"),
        delta(4, "late"),
        {**delta(5, "late"), **second},
        {**delta(6, "late"), **second},
    ]
    await bench.publish(*late)
    await take_the_first_elsewhere(bench)
    assert await counts(bench.redis, bench.prefix) == {"late": 4}


async def test_each_type_is_counted_by_its_own_new_events(bench: Bench) -> None:
    """Otherwise events of one type would be counted as another's, or twice."""
    other = {"type": "response.in_progress.other"}
    await bench.publish(KEEPALIVE, KEEPALIVE, other, KEEPALIVE, other, other)
    await take_the_first_elsewhere(bench, 3)
    counted = await counts(bench.redis, bench.prefix)
    assert counted == {"type:keepalive": 3, f"type:{other['type']}": 3}


async def test_each_dead_letter_is_written_with_its_own_entry(bench: Bench) -> None:
    """Otherwise a dead letter would be written twice, or another one be lost."""
    await bench.publish("{one", KEEPALIVE, "{two", "{three")
    await take_the_first_elsewhere(bench, 2)
    letters = await dead_letters(bench.redis, bench.prefix)
    assert ["{one" in letters[0].entry, "{two" in letters[1].entry, "{three" in letters[2].entry] == [
        True
    ] * 3
    assert len(letters) == 3


async def test_a_commit_reports_acknowledged_entries_and_late_events(bench: Bench) -> None:
    """Otherwise the worker's log would show neither entries acknowledged by others nor late events."""
    await bench.publish(delta(1, "a"), done("a"))
    await bench.consumer().work()
    await bench.publish(KEEPALIVE, delta(2, "late"), delta(3, "late"), KEEPALIVE)
    batch = await bench.consumer("stopped").read()
    await bench.consumer("other").process(batch[:2])
    committed = await bench.commit(batch)
    assert (committed.acknowledged, committed.late_events) == (2, 1)


async def _commit(bench: Bench, entries: Sequence[RawEntry], *, read_ms: int) -> None:
    commit = bench.batch(entries).commit
    commit.read_ms = read_ms
    await bench.storage.commit(commit, whole=True)


async def test_entries_taken_over_after_they_were_read_are_counted_once(bench: Bench) -> None:
    """Otherwise a worker that was suspended would count what another one has counted meanwhile."""
    await bench.publish(KEEPALIVE, KEEPALIVE, KEEPALIVE)
    batch = await bench.consumer(bench.settings.consumer).read()
    await bench.consumer("other").process(batch[1:2])
    await _commit(bench, batch, read_ms=await bench.now_ms() - 500)
    assert await counts(bench.redis, bench.prefix) == {"type:keepalive": 3}


async def test_a_fresh_batch_is_counted_once_though_the_reply_is_lost(bench: Bench) -> None:
    """Otherwise a connection that breaks during a commit would double counts and dead letters."""
    await bench.publish(KEEPALIVE, "no JSON", KEEPALIVE)
    batch = await bench.consumer(bench.settings.consumer).read()
    for _ in range(2):
        await _commit(bench, batch, read_ms=await bench.now_ms())
    assert await counts(bench.redis, bench.prefix) == {"type:keepalive": 2}
    assert len(await dead_letters(bench.redis, bench.prefix)) == 1


async def test_no_batch_is_fresh_after_a_failover(bench: Bench) -> None:
    """Otherwise entries whose delivery the new server does not know, and repeats, would be counted twice."""
    await bench.publish(KEEPALIVE, KEEPALIVE, KEEPALIVE)
    consumer = bench.consumer()
    batch = await consumer.read()
    await bench.consumer("other").process(batch[1:2])
    builder = consumer.worker.builder(batch)
    builder.replication_id, builder.read_ms = "0" * 40, await bench.now_ms()
    await consumer.worker.process(builder)
    assert await counts(bench.redis, bench.prefix) == {"type:keepalive": 3}


async def test_the_time_of_a_read_is_unknown_before_the_first_commit(bench: Bench) -> None:
    """Otherwise the clock of the worker's machine would be taken for the server's."""
    consumer = bench.consumer()
    assert consumer.worker.builder().read_ms == 0
    await bench.publish(KEEPALIVE)
    await consumer.work()
    assert abs(consumer.worker.builder().read_ms - await bench.now_ms()) < 60_000
