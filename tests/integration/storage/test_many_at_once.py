"""Batches with more responses than a script can pass to one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from service.storage import commit_plan, replies
from service.storage.replies import loaded_from
from service.storage.store import RedisStorage
from tests.bench import KEEPALIVE, delta, done
from tests.workers import texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.core.identity import PartKey, StreamKey
    from service.ports.storage import LoadedResponse
    from tests.bench import Bench

MANY = 1003
"""Number of responses: this many members need two commands, and this many pairs of score and member three."""


async def test_every_response_of_a_large_batch_is_noted_as_open(bench: Bench) -> None:
    """Otherwise one response in a thousand would never be abandoned, or be abandoned in mid-stream."""
    names = [f"r{n}" for n in range(MANY)]
    now_ms, consumer = await bench.now_ms(), bench.consumer()
    events = (delta(1, "a"), delta(2, "b"), KEEPALIVE)  # open, extend, keep alive
    for event, at in zip(events, (now_ms - 60_000, now_ms - 30_000, now_ms), strict=True):
        for name in names:
            await bench.publish_at(at, event, response_id=name)
        await consumer.work(2 * MANY)
        noted = await bench.member_scores("open")
        assert set(noted) == {f"response:{name}" for name in names}
        assert min(noted.values()) >= at


async def test_texts_that_grow_together_keep_to_their_own_deltas(bench: Bench) -> None:
    """Otherwise one text would contain deltas of another."""
    parts = {("r1", 0): "a", ("r1", 1): "bb", ("r2", 0): "ccc", ("r3", 0): "d"}
    consumer = bench.consumer()
    for number in range(3):
        for (name, index), word in parts.items():
            await bench.publish({**delta(number, word), "content_index": index}, response_id=name)
        await consumer.work()
    for (name, index), word in parts.items():
        await bench.publish({**done(3 * word), "content_index": index}, response_id=name)
    await consumer.work()
    written = await texts(bench.redis, bench.prefix)
    assert {(text.response_id, text.content_index): text.text for text in written} == {
        part: 3 * word for part, word in parts.items()
    }
    assert {(text.integrity, text.delta_count) for text in written} == {("verified", 3)}


async def test_every_certain_text_of_a_large_batch_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one certain text in a thousand would wait for a stuck worker."""
    monkeypatch.setattr(commit_plan, "STALLED_MS", -1)
    await bench.publish(KEEPALIVE)
    await bench.consumer("stuck").read()
    for n in range(MANY):
        await bench.publish(done("a"), response_id=f"r{n}")
    committed = await bench.commit(await bench.consumer("one").read(2 * MANY))
    assert len(committed.loaded) + len(committed.ready) == MANY


async def test_every_text_of_a_large_batch_comes_out(bench: Bench) -> None:
    """Otherwise a batch with more texts than one survey reports would leave some behind."""
    for n in range(MANY):
        await bench.publish(done(f"{n}"), response_id=f"r{n}")
    await bench.consumer().work(2 * MANY)
    written = await texts(bench.redis, bench.prefix)
    assert sorted(int(text.text) for text in written) == list(range(MANY))


@pytest.mark.parametrize("held_back", [False, True])
async def test_the_first_texts_of_a_burst_do_not_wait_for_the_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, held_back: bool
) -> None:
    """Write the first texts before the last are decoded, also of texts that an older entry held back."""
    # Publishing takes a while, after which the worker with the older entry would count as stuck.
    monkeypatch.setattr(commit_plan, "STALLED_MS", 3_600_000)
    decoded, decoded_before = 0, []
    written = RedisStorage.settle

    def decoding(key: StreamKey, *args: Any) -> LoadedResponse:
        nonlocal decoded
        decoded += 1
        return loaded_from(key, *args)

    async def settle(storage: RedisStorage, *args: Any) -> Sequence[PartKey]:
        decoded_before.append(decoded)
        return await written(storage, *args)

    monkeypatch.setattr(replies, "loaded_from", decoding)
    monkeypatch.setattr(RedisStorage, "settle", settle)
    other = bench.consumer("other")
    # In an earlier millisecond: storage compares ids by milliseconds, and also reports texts of the same one.
    await bench.publish_at(await bench.now_ms() - 1000, KEEPALIVE)
    older = await other.read()
    if not held_back:
        await other.process(older)
    for n in range(120):
        await bench.publish(done("a"), response_id=f"r{n}")
    await bench.consumer().work()
    if held_back:
        assert decoded_before == []
        await other.process(older)
    assert decoded_before == ([50, 100, 120] if held_back else [51, 101, 120])
    assert len(await texts(bench.redis, bench.prefix)) == 120
