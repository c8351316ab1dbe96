"""The limits of a response: repeated events must not fill its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from handlers.core.identity import StreamKey
from service.keys import Keys
from tests.bench import COMPLETED, Bench, delta, done
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

PARTS = 4
FIELDS, ONCE = 64 + 8 * PARTS, 4
"""Maximum number of fields of a state with notes, and number of fields that are stored regardless of it."""

RESPONSE = StreamKey("response", "resp_1")
BEYOND = "parts_beyond_limit"


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench with at most four parts per response."""
    return Bench(redis, prefix, max_response_parts=PARTS)


def message(*refusals: str) -> dict[str, Any]:
    """Return an item with these refusals."""
    return {"type": "message", "content": [{"type": "refusal", "refusal": each} for each in refusals]}


def item_added(number: int) -> dict[str, Any]:
    """Return a `response.output_item.added` event that already contains a text."""
    return {"type": "response.output_item.added", "output_index": number, "item": message(f"No {number}.")}


def item_done(_: int) -> dict[str, Any]:
    """Return the closing event of an item without texts."""
    return {"type": "response.output_item.done", "output_index": 0, "item": message()}


def redacted(number: int) -> dict[str, Any]:
    """Return the redaction of one of four parts."""
    place = {"output_index": number % PARTS, "content_index": 0, "kind": "refusal"}
    return {"type": "deltaloom.part.redacted", **place}


async def process(bench: Bench, events: Sequence[dict[str, Any]], at_once: int) -> None:
    """Process events in batches of `at_once`, each with a new worker, which has an empty cache."""
    for first in range(0, len(events), at_once):
        await bench.publish(*events[first : first + at_once])
        await bench.consumer().work()


async def fields(bench: Bench) -> int:
    """Return the number of fields of the response's state."""
    return int(await bench.redis.hlen(Keys(bench.names).state(RESPONSE)))


async def letters_about_limits(bench: Bench) -> int:
    """Return the number of dead letters that name a response with too many parts or notes."""
    letters = await dead_letters(bench.redis, bench.prefix)
    return sum(letter.error.startswith("this response has more ") for letter in letters)


async def test_final_copy_has_no_more_texts_than_a_response_parts(bench: Bench) -> None:
    """Otherwise one event of a megabyte would make tens of thousands of alerts."""
    output = [message("one", "two"), message("three", "four", "five", "six")]
    await process(bench, [{"type": "response.completed", "response": {"output": output}}], 1)
    got = [text.text for text in await texts(bench.redis, bench.prefix)]
    assert got == ["one", "two", "three", "four"]
    assert len(await alerts(bench.redis, bench.prefix)) == 2 * PARTS
    assert (await counts(bench.redis, bench.prefix))[BEYOND] == 1
    assert await letters_about_limits(bench) == 1


@pytest.mark.parametrize("at_once", [1, 2, 12])
async def test_no_more_texts_are_announced_than_a_response_has_parts(bench: Bench, at_once: int) -> None:
    """Otherwise the response's state would grow until its end, and then all texts would come out."""
    await process(bench, [item_added(number) for number in range(12)], at_once)
    assert await fields(bench) <= FIELDS + ONCE
    await process(bench, [COMPLETED], 1)
    got = [text.text for text in await texts(bench.redis, bench.prefix)]
    assert got == [f"No {number}." for number in range(PARTS if at_once < 12 else 0)]
    assert await letters_about_limits(bench) == 1


@pytest.mark.parametrize("make", [item_done, redacted])
@pytest.mark.parametrize("at_once", [1, 7])
async def test_state_has_a_limit_and_its_response_ends(
    bench: Bench, make: Callable[[int], dict[str, Any]], at_once: int
) -> None:
    """Otherwise each batch would read all notes, at a cost that grows with the square of their number."""
    await process(bench, [delta(1, "", "refusal")], 1)
    await process(bench, [make(number) for number in range(3 * FIELDS)], at_once)
    assert await fields(bench) <= FIELDS + ONCE
    assert (await counts(bench.redis, bench.prefix))[BEYOND] > FIELDS
    assert await letters_about_limits(bench) == 1
    await process(bench, [COMPLETED], 1)
    assert await bench.redis.exists(bench.names.name("open"), bench.names.name("waiting")) == 0


async def test_one_batch_of_it_is_left_out_and_other_responses_are_not(bench: Bench) -> None:
    """Otherwise a hostile response would cost an honest one its alert."""
    flood = [item_done(number) for number in range(3 * FIELDS)]
    await bench.publish(delta(1, "", "refusal"), *flood)
    await bench.publish(delta(1, "No", "refusal"), done("No", "refusal"), response_id="resp_2")
    await bench.consumer().work()
    got = [(text.response_id, text.text) for text in await texts(bench.redis, bench.prefix)]
    assert got == [("resp_2", "No")]
    assert await letters_about_limits(bench) == 1


async def test_honest_response_keeps_within_the_limit(bench: Bench) -> None:
    """Otherwise a response with the maximum number of parts would lose some of its events."""
    events: list[dict[str, Any]] = []
    for number in range(PARTS):
        part = {"output_index": number, "item_id": f"item_{number}"}
        digest = {"algorithm": "sha256", "value": "0" * 64}
        events += [
            delta(number, "No", "refusal") | part,
            done("", "refusal") | part | {"checksum": digest},
            item_done(0) | {"output_index": number},
        ]
    await process(bench, [*events, COMPLETED], 1)
    assert len(await texts(bench.redis, bench.prefix)) == PARTS
    assert BEYOND not in await counts(bench.redis, bench.prefix)


async def test_response_has_a_limit_in_bytes(redis: Redis, prefix: str) -> None:
    """Otherwise a settlement would read gigabytes at once, in parts of 8 MiB."""
    large = 64 * 1024
    bench = Bench(redis, prefix, max_response_bytes=3 * large)
    consumer = bench.consumer()
    for number in range(16):
        await bench.publish(delta(number, "x" * large, "refusal") | {"output_index": number // 2})
        await consumer.work()
    await bench.publish(COMPLETED)
    await consumer.work()
    got = await texts(redis, prefix)
    assert sum(len(text.text) - large for text in got) <= 3 * large
    assert sum(text.delta_count for text in got) > 8
    reasons = [letter.reason for letter in await dead_letters(redis, prefix)]
    assert reasons == ["oversized"] * (16 - sum(text.delta_count for text in got))


async def test_notes_of_a_response_have_a_limit_in_bytes(redis: Redis, prefix: str) -> None:
    """Otherwise texts of `added` events could fill Redis although deltas cannot."""
    bench = Bench(redis, prefix, max_response_bytes=300_000)
    for number in range(10):
        item = message(str(number) * 100_000)
        await bench.publish({"type": "response.output_item.added", "output_index": number, "item": item})
        await bench.consumer().work()
    state = Keys(bench.names).state(RESPONSE)
    assert int(await redis.memory_usage(state) or 0) < 500_000
    await bench.publish(COMPLETED)
    await bench.consumer().work()
    assert len(await texts(redis, prefix)) == 3


async def test_context_of_a_response_takes_no_room_from_its_notes(redis: Redis, prefix: str) -> None:
    """Otherwise a response with a single allowed part would lose its checksum."""
    bench = Bench(redis, prefix, max_response_parts=1)
    context = dict.fromkeys(("tenant", "safety_identifier", "provider", "dialect", "reference", "model"), "x")
    digest = {"algorithm": "sha256", "value": "0" * 64}
    for event in (delta(1, "No", "refusal"), done("", "refusal") | {"checksum": digest}, item_done(0)):
        await bench.publish(event, **context)
        await bench.consumer().work()
    assert len(await texts(redis, prefix)) == 1
    assert BEYOND not in await counts(redis, prefix)
