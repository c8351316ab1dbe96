"""The limits of a part are exact, however its log grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bench import Bench, delta, done
from tests.workers import dead_letters, texts

if TYPE_CHECKING:
    from redis.asyncio import Redis

AT_MS = 1_700_000_000_000
"""Time of the measured entries, in milliseconds. Ids of equal length give logs of equal length."""


async def log_bytes(bench: Bench, response_id: str) -> int:
    """Return the length of the log of a response's only part, in bytes."""
    (log,) = await bench.redis.keys(f"{bench.prefix}:log:*{response_id}*")
    return int(await bench.redis.strlen(log))


async def refused(bench: Bench) -> int:
    """Return the number of entries that became dead letters because of their size."""
    letters = await dead_letters(bench.redis, bench.prefix)
    assert {letter.reason for letter in letters} <= {"oversized"}
    return len(letters)


async def grow(bench: Bench, response_id: str, known: bool) -> None:  # noqa: FBT001 - a parameter of the tests
    """Commit two deltas in two batches: by one worker that knows the part (`known`), or by two workers."""
    one = bench.consumer()
    for number in (1, 2):
        await bench.publish_at(AT_MS, delta(number, "x" * 600), response_id=response_id)
        await (one if known else bench.consumer()).work()


@pytest.mark.parametrize("known", [False, True])
async def test_a_part_may_have_exactly_the_bytes_of_the_limit(
    redis: Redis, prefix: str, *, known: bool
) -> None:
    """Otherwise the last delta that fits would be a dead letter, or a larger one be accepted."""
    await grow(Bench(redis, prefix), "measured", known)
    size = await log_bytes(Bench(redis, prefix), "measured")
    exact = Bench(redis, prefix, max_part_bytes=size)
    await grow(exact, "resp_fit", known)
    assert await refused(exact) == 0
    assert await log_bytes(exact, "resp_fit") == size
    short = Bench(redis, prefix, max_part_bytes=size - 1)
    await grow(short, "resp_big", known)
    assert await refused(short) == 1


@pytest.mark.parametrize("cut", [[2, 2], [3, 1], [1, 3], [4]])
async def test_a_part_may_have_exactly_the_deltas_of_the_limit(
    redis: Redis, prefix: str, cut: list[int]
) -> None:
    """Otherwise the last allowed delta would be a dead letter, or one more be accepted."""
    bench = Bench(redis, prefix, max_part_fragments=4)
    consumer, number = bench.consumer(), 0
    for count in cut:
        await bench.publish(*(delta(number + n, "x" * 20) for n in range(count)))
        number += count
        await consumer.work()
    assert await refused(bench) == 0
    await bench.publish(delta(9, "x" * 20))
    await consumer.work()
    assert await refused(bench) == 1
    await bench.publish(done("x" * 80))
    await consumer.work()
    (text,) = await texts(redis, prefix)
    assert (text.integrity, text.delta_count) == ("verified", 4)


async def test_one_batch_may_not_have_more_deltas_of_a_part_than_the_limit(redis: Redis, prefix: str) -> None:
    """Otherwise a part in a single batch would have no limit."""
    bench = Bench(redis, prefix, max_part_fragments=4)
    await bench.publish(*(delta(number, "") for number in range(5)))
    await bench.consumer().work()
    assert await refused(bench) == 5


async def test_deltas_are_counted_in_chunks_of_any_length(redis: Redis, prefix: str) -> None:
    """Otherwise chunks of some lengths would hide deltas from the limit, or make the script loop forever."""
    bench = Bench(redis, prefix, max_part_fragments=3)
    lengths = [*range(80, 150), *range(225, 265), 16_330, 16_340, 16_350, 16_360, 16_384, 40_000]
    consumer = bench.consumer()
    for number in range(3):
        for length in lengths:
            await bench.publish(delta(number, "x" * length), response_id=f"resp_{length}")
        await consumer.work()
    assert await refused(bench) == 0
    for length in lengths:
        await bench.publish(delta(3, "x"), response_id=f"resp_{length}")
    await consumer.work()
    assert await refused(bench) == len(lengths)


@pytest.mark.parametrize("count", [127, 128, 129, 255, 256, 257])
async def test_deltas_are_counted_in_chunks_of_any_number(redis: Redis, prefix: str, count: int) -> None:
    """Otherwise a batch with many deltas of one part would count as a few."""
    bench = Bench(redis, prefix, max_part_fragments=2 * count)
    consumer = bench.consumer()
    for first in (0, count):
        await bench.publish(*(delta(first + n, "four") for n in range(count)))
        await consumer.work()
    assert await refused(bench) == 0
    await bench.publish(delta(2 * count, "four"))
    await consumer.work()
    assert await refused(bench) == 1


async def test_the_part_that_is_too_large_is_named_and_no_other(redis: Redis, prefix: str) -> None:
    """Otherwise deltas of another part would be dropped, and the large part be repeated forever."""
    bench = Bench(redis, prefix, max_part_bytes=1024)
    await bench.publish(delta(1, "small"), response_id="resp_0")
    await bench.publish(delta(1, "small"), {**delta(2, "x" * 2000), "content_index": 1})
    batch = await bench.consumer("one").read()
    committed = await bench.commit(batch)
    assert [(part.stream_key.value, part.content_index) for part in committed.overflowing] == [("resp_1", 1)]
    await bench.consumer("one").process(batch)
    await bench.publish(done("small"), response_id="resp_0")
    await bench.publish(done("small"))
    await bench.consumer("one").work()
    assert [text.text for text in await texts(redis, prefix)] == ["small", "small"]
    assert await refused(bench) == 1


async def test_late_deltas_of_a_finished_part_are_never_too_large(redis: Redis, prefix: str) -> None:
    """Otherwise a late event would become a dead letter."""
    bench = Bench(redis, prefix, max_part_bytes=1024)
    await bench.publish(delta(1, "a"), done("a"))
    await bench.consumer().work()
    await bench.publish(delta(2, "x" * 2000))
    await bench.consumer().work()
    assert await refused(bench) == 0


async def test_a_large_text_is_whole_however_its_log_grows(bench: Bench) -> None:
    """Otherwise a chunk would be lost when the script changes from rewriting the log to appending."""
    consumer = bench.consumer()
    for number in range(40):
        await bench.publish(delta(number, f"{number:03} " * 25))
        await (consumer if number % 3 else bench.consumer("other")).work()
    whole = "".join(f"{number:03} " * 25 for number in range(40))
    await bench.publish(done(whole))
    await consumer.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity, text.delta_count, text.duplicate_count) == (whole, "verified", 40, 0)
