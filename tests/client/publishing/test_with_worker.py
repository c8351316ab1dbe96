"""Test the texts that a real worker makes of a publisher's entries, with a network that loses replies."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from chaos.proxy import Proxy
from deltaloom import Publisher
from tests.client.publishing.streams_of_events import completed, delta, done, refusal
from tests.waiting import wait_until
from tests.workers import dead_letters, texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

WORDS = [f"<{number}>" for number in range(200)]


@asynccontextmanager
async def disturbed(redis_url: str, prefix: str, **settings: Any) -> AsyncIterator[tuple[Proxy, Publisher]]:
    """Run a publisher behind a proxy."""
    port = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    async with Proxy(port).running() as proxy:
        publisher = Publisher(f"redis://127.0.0.1:{proxy.port}", prefix=prefix, timeout=0.3, **settings)
        try:
            yield proxy, publisher
        finally:
            await asyncio.to_thread(publisher.close, 0)


async def test_lost_replies_double_nothing(redis: Redis, redis_url: str, prefix: str) -> None:
    """Write a text once, though the replies of batches were lost and the batches sent again."""
    async with disturbed(redis_url, prefix) as (proxy, publisher):
        streams = [publisher.stream(f"resp_{which}") for which in range(3)]
        for number, event in enumerate(refusal(WORDS)):
            for stream in streams:
                stream.offer([event])
            if number % 50 == 10:
                await wait_until(lambda: publisher.counters.waiting == 0)
                for stream in streams:
                    stream.offer([delta("reasoning", str(number), 1_000 + number, output_index=1)])
                await proxy.mute(1.0, 0.2)
        await wait_until(lambda: publisher.counters.waiting == 0)
        counters = await asyncio.to_thread(publisher.close, 10)
    assert sum(counters.failures.values()) >= 3
    assert counters.dropped == {}
    assert await redis.xlen(f"{prefix}:deltas") > counters.entries, "no entry was stored twice"
    async with workers_in_process(redis_url, prefix):
        await wait_until_settled(redis, prefix)
    found = {(text.response_id, text.kind): text for text in await texts(redis, prefix)}
    for which in range(3):
        text = found[f"resp_{which}", "refusal"]
        assert (text.text, text.integrity) == ("".join(WORDS), "verified")
        assert found[f"resp_{which}", "reasoning"].text == "1060110160"
    assert len(found) == 6
    assert await dead_letters(redis, prefix) == []


async def test_events_without_numbers_are_not_doubled_either(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """Number events that have no number, so that lost replies double nothing."""
    async with disturbed(redis_url, prefix) as (proxy, publisher):
        stream = publisher.stream("resp_1")
        for _ in range(3):
            stream.offer([delta("reasoning", "ha", None)])
            await wait_until(lambda: publisher.counters.waiting == 0)
            stream.offer([delta("reasoning", "ha", None)])
            await proxy.mute(1.0, 0.2)
        await wait_until(lambda: publisher.counters.waiting == 0)
        end = completed(0)
        del end["sequence_number"]
        stream.offer([end])
        counters = await asyncio.to_thread(publisher.close, 10)
    assert counters.failures
    async with workers_in_process(redis_url, prefix):
        await wait_until_settled(redis, prefix)
    (text,) = await texts(redis, prefix)
    assert text.text == "ha" * 6


async def test_checksum_in_place_of_a_text_verifies_it(redis: Redis, redis_url: str, prefix: str) -> None:
    """Verify joined deltas by the checksum that replaced the closing's text."""
    publisher = Publisher(redis_url, prefix=prefix, budget=64 * 1024, share=1, linger=3600)
    stream = publisher.stream("resp_1")
    words = ["é" * 2_000] * 5
    for number, word in enumerate(words):
        stream.offer([delta("reasoning", word, number)])
    stream.offer([done("reasoning", "".join(words), 5)])
    stream.offer([completed(6)])
    counters = await asyncio.to_thread(publisher.close, 10)
    assert (counters.reduced, counters.dropped) == (1, {})
    async with workers_in_process(redis_url, prefix):
        await wait_until_settled(redis, prefix)
    (text,) = await texts(redis, prefix)
    assert (text.text, text.integrity) == ("".join(words), "verified")


async def test_loss_is_visible_in_the_text(redis: Redis, redis_url: str, prefix: str) -> None:
    """Call no text verified that misses a delta, and make no dead letter of a loss report."""
    publisher = Publisher(redis_url, prefix=prefix, linger=3600)
    closed, unclosed = publisher.stream("closed"), publisher.stream("unclosed")
    for stream in (closed, unclosed):
        stream.offer([delta("reasoning", "a", 0), {"type": "response.in_progress", "x": object()}])
        stream.offer([delta("reasoning", "b", 1), 7])  # type: ignore[list-item] # not an event
    closed.offer([done("reasoning", "ab", 2)])
    for stream in (closed, unclosed):
        stream.offer([completed(3)])
    for number in range(2_000):
        publisher.stream(f"other-{number}").offer([7])  # type: ignore[list-item] # the same
    counters = await asyncio.to_thread(publisher.close, 10)
    assert counters.dropped == {"invalid": 2_002, "not_json": 2}
    async with workers_in_process(redis_url, prefix, idle_timeout=1):
        await wait_until_settled(redis, prefix)
    found = {text.response_id: (text.text, text.integrity) for text in await texts(redis, prefix)}
    assert found == {"closed": ("ab", "repaired"), "unclosed": ("ab", "unverified")}
    assert await dead_letters(redis, prefix) == []
