"""A batch that would block the server for too long is stored in pieces, and its effects come once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from service.keys import Keys
from service.ports.storage import StorageUnavailableError
from service.storage import commit_plan
from service.storage.store import RedisStorage
from tests.bench import COMPLETED, Bench, delta, done
from tests.streams import add
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from service.ports.commit import Commit
    from service.ports.storage import Committed

ITEMS = 5


class Interrupted(RedisStorage):
    """A storage that loses its connection before one of the calls of a batch."""

    def __init__(self, bench: Bench, before: int) -> None:
        super().__init__(bench.redis, Keys(bench.names), bench.settings)
        self.calls: list[bool] = []
        """The argument `whole` of each call: whether it stored a piece of a batch."""
        self.sizes: list[int] = []
        """Number of entries of each call."""
        self._before = before

    async def commit(self, commit: Commit, replication_id: str = "", *, whole: bool = False) -> Committed:
        """Commit, or raise an error at the chosen call."""
        self.calls.append(whole)
        self.sizes.append(len(commit.entries))
        if len(self.calls) == self._before:
            raise StorageUnavailableError("ConnectionError", "cut")
        return await super().commit(commit, replication_id, whole=whole)


async def outputs(redis: Redis, prefix: str, before: int, *, pieces: bool) -> dict[str, Any]:
    """Return the outputs of an entry with events of several items, one of which was finished before."""
    bench = Bench(redis, prefix)
    storage = Interrupted(bench, before)
    consumer = bench.consumer(storage=storage)
    items = [f"item_{number}" for number in range(ITEMS)]
    for event in (done("Nothing.", "refusal"), COMPLETED):
        await add(redis, bench.names.deltas, {"event": json.dumps({**event, "item_id": items[0]})})
    await bench.consumer("first").work()
    events: list[Any] = [{"type": "made.up"}, "no event"]
    for item in items:
        events += [
            {**event, "item_id": item} for event in (delta(1, "No", "refusal"), done("No.", "refusal"))
        ]
    await add(redis, bench.names.deltas, {"event": json.dumps(events)})
    await consumer.work()
    assert any(storage.calls) == pieces
    return {
        "texts": sorted((text.item_id, text.text) for text in await texts(redis, prefix)),
        "alerts": sorted((alert.item_id, alert.type) for alert in await alerts(redis, prefix)),
        "letters": [letter.reason for letter in await dead_letters(redis, prefix)],
        "counts": await counts(redis, prefix),
    }


@pytest.mark.parametrize("before", range(2 + ITEMS + 2))
async def test_all_of_it_comes_out_once(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Otherwise parts of an entry in pieces would be lost, or be counted twice after a lost connection."""
    whole = await outputs(redis, f"{prefix}-whole", 0, pieces=False)
    monkeypatch.setattr(commit_plan, "MAX_SERVER_US", 10)
    assert await outputs(redis, f"{prefix}-cut", before, pieces=True) == whole
    assert whole["counts"]["late"] == 1
    assert len(whole["texts"]) == ITEMS


async def outputs_of_entries(redis: Redis, prefix: str, before: int, *, pieces: bool) -> dict[str, Any]:
    """Return the outputs of a batch with entries of several responses, one of which was finished before."""
    bench = Bench(redis, prefix)
    storage = Interrupted(bench, before)
    consumer = bench.consumer(storage=storage)
    items = [f"item_{number}" for number in range(ITEMS)]
    for event in (done("Nothing.", "refusal"), COMPLETED):
        await bench.publish(event, response_id=items[0])
    await bench.consumer("first").work()
    await bench.publish({"type": "made.up"}, response_id="other")
    await consumer.work()  # the time of the server and its replication id are known from here on
    storage.calls.clear()
    storage.sizes.clear()
    await bench.publish({"type": "made.up"}, "no event", response_id="other")
    for event in (delta(1, "No", "refusal"), delta(2, ".", "refusal"), done("No.", "refusal")):
        for item in items:
            await bench.publish(event, response_id=item)
    await consumer.work()
    assert any(storage.calls) == pieces
    assert set(storage.sizes) == {2 + 3 * ITEMS}, "the batch must not be cut by its entries"
    return {
        "texts": sorted((text.response_id, text.text) for text in await texts(redis, prefix)),
        "alerts": sorted((alert.response_id, alert.type) for alert in await alerts(redis, prefix)),
        "letters": [letter.reason for letter in await dead_letters(redis, prefix)],
        "counts": await counts(redis, prefix),
    }


@pytest.mark.parametrize("before", range(2 + ITEMS + 1))
async def test_a_batch_of_several_entries_comes_out_once(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Otherwise texts of a batch in pieces would be lost, or late deltas be counted twice or not at all."""
    whole = await outputs_of_entries(redis, f"{prefix}-whole", 0, pieces=False)
    monkeypatch.setattr(commit_plan, "MAX_SERVER_US", 80)
    assert await outputs_of_entries(redis, f"{prefix}-cut", before, pieces=True) == whole
    assert whole["counts"]["late"] == 2
    assert len(whole["texts"]) == ITEMS
