"""A commit applies the ends of items that have nothing left to close, so that no settlement has to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from handlers.core.identity import StreamKey
from service.keys import Keys
from service.pipeline.batch_builder import LARGE_ENTRY_BYTES
from tests.bench import KEEPALIVE, delta, done
from tests.integration.storage.test_low_water import reported
from tests.workers import texts

if TYPE_CHECKING:
    from tests.bench import Bench

ITEM_DONE = {
    "type": "response.output_item.done",
    "output_index": 0,
    "item": {"type": "reasoning", "id": "item_1", "content": []},
}


async def endings(bench: Bench) -> list[str]:
    """Return the endings that are stored for the response."""
    fields: list[Any] = await bench.redis.hkeys(Keys(bench.names).state(StreamKey("response", "resp_1")))
    assert fields
    return [field.decode() for field in fields if field.startswith(b"end:")]


async def test_an_end_with_nothing_to_close_is_applied_at_once(bench: Bench) -> None:
    """Otherwise each item would cost a settlement, after the one of its text."""
    consumer = bench.consumer()
    await bench.publish(delta(1, "a"), done("a"))
    await consumer.work()
    await bench.publish(ITEM_DONE)
    committed = await bench.commit(await consumer.read())
    assert reported(committed) == []
    assert await endings(bench) == []
    assert await bench.member_scores("waiting") == {}


async def test_an_end_is_kept_for_an_earlier_entry_of_another_worker(bench: Bench) -> None:
    """Otherwise the end would not close the text that the pending entry begins."""
    first, slow = bench.consumer("first"), bench.consumer("slow")
    await bench.publish(KEEPALIVE)
    await first.work()
    now_ms = await bench.now_ms() + 1000
    await bench.publish_at(now_ms, delta(1, "a"))
    held = await slow.read()
    await bench.publish_at(now_ms, ITEM_DONE)
    await first.work()
    assert len(await endings(bench)) == 1
    await slow.process(held)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]
    assert await endings(bench) == []
    assert await bench.member_scores("waiting") == {}


async def test_an_end_is_kept_for_an_earlier_large_entry_of_its_response(bench: Bench) -> None:
    """Otherwise the end would not close the text of the entry, which holds up no other response."""
    first, slow = bench.consumer("first"), bench.consumer("slow")
    large, now_ms = "a" * LARGE_ENTRY_BYTES, await bench.now_ms()
    await bench.publish_at(now_ms, delta(1, large))
    held = slow.worker.builder(await slow.read())
    assert len(held.owners) == 1
    await bench.storage.record_owners(held.owners)
    await bench.publish_at(now_ms, ITEM_DONE)
    await first.work()
    assert len(await endings(bench)) == 1
    await slow.worker.process(held)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == [large]


async def test_an_id_beyond_exact_numbers_is_left_to_the_worker(bench: Bench) -> None:
    """Otherwise a rounded number could apply an end before an earlier entry has been stored."""
    first, slow = bench.consumer("first"), bench.consumer("slow")
    ms = 2**63
    await bench.publish_at(ms, delta(1, "a"))
    held = await slow.read()
    await bench.publish_at(ms, ITEM_DONE)
    await first.work()
    assert len(await endings(bench)) == 1
    await slow.process(held)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]
