"""A response that a worker is settling is not settled a second time by the same worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from deltaloom.streams import StreamNames
from handlers.core.identity import StreamKey
from service.keys import Keys
from service.ports.storage import StorageUnavailableError
from service.storage import commit_plan
from service.storage.store import RedisStorage
from tests.bench import delta, done
from tests.workers import texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.core.identity import PartKey
    from service.ports.storage import LoadedResponse, Settlement, Survey
    from tests.bench import Bench


class HeldStorage(RedisStorage):
    """A storage that holds its first settlement until it is let go, and records what is loaded."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.redis, Keys(StreamNames(bench.prefix)), bench.settings)
        self.held, self.go = asyncio.Event(), asyncio.Event()
        self.is_away = False
        """True if the held settlement finds the server away."""
        self.fails = False
        """True if the next settlement finds another replication id."""
        self.surveyed = asyncio.Event()
        self.loaded: list[StreamKey] = []

    async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> Sequence[PartKey]:
        """Wait, and settle, unless it has to fail."""
        if not self.held.is_set():
            self.held.set()
            await self.go.wait()
            if self.is_away:
                raise StorageUnavailableError("away")
        if self.fails:
            self.fails, replication_id = False, "0" * 40
        return await super().settle(settlements, replication_id)

    async def survey(self, idle_timeout_ms: int) -> Survey:
        """Survey, and tell it."""
        survey = await super().survey(idle_timeout_ms)
        self.surveyed.set()
        return survey

    async def load(self, stream_keys: Sequence[StreamKey]) -> Sequence[LoadedResponse]:
        """Record the keys, and load."""
        self.loaded += stream_keys
        return await super().load(stream_keys)


async def published(bench: Bench, response_id: str) -> None:
    """Publish a text."""
    for event in (delta(1, response_id), done(response_id)):
        await bench.publish(event, response_id=response_id)


async def test_what_a_batch_settles_is_left_to_it(bench: Bench) -> None:
    """Otherwise each text of a burst would be read and decided several times while the worker is behind."""
    storage = HeldStorage(bench)
    consumer = bench.consumer(storage=storage)
    await published(bench, "resp_1")
    first = asyncio.create_task(consumer.work())
    await storage.held.wait()
    await consumer.worker.sweep()
    await published(bench, "resp_2")
    await consumer.work()
    assert storage.loaded == []
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["resp_2"]
    storage.go.set()
    await first
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["resp_2", "resp_1"]
    assert storage.loaded == []


@pytest.mark.parametrize("is_away", [False, True])
async def test_what_was_left_to_a_batch_in_vain_is_settled_after_it(bench: Bench, *, is_away: bool) -> None:
    """Otherwise a text would wait for the next sweep if the batch could not finish it, at any attempt."""
    storage = HeldStorage(bench)
    consumer = bench.consumer(storage=storage)
    await published(bench, "resp_1")
    first = asyncio.create_task(consumer.work())
    await storage.held.wait()
    await published(bench, "resp_2")
    await consumer.work()
    storage.fails, storage.is_away = True, is_away
    storage.go.set()
    await first
    assert sorted(text.text for text in await texts(bench.redis, bench.prefix)) == ["resp_1", "resp_2"]
    assert storage.loaded == [StreamKey("response", "resp_1")]


async def test_a_sweep_goes_on_after_what_is_left_to_a_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a burst would wait for one sweep after another while batches settle its first texts."""
    monkeypatch.setattr(commit_plan, "MAX_RESPONSES", 2)
    storage = HeldStorage(bench)
    consumer = bench.consumer(storage=storage)
    names = [f"resp_{n}" for n in range(6)]
    for name in names[:2]:
        await published(bench, name)
    first = asyncio.create_task(consumer.work())
    await storage.held.wait()
    for name in names[2:]:
        await published(bench, name)
    await consumer.work()
    assert await texts(bench.redis, bench.prefix) == []
    storage.surveyed.clear()
    sweep = asyncio.create_task(consumer.worker.sweep())
    await storage.surveyed.wait()
    storage.go.set()
    await asyncio.gather(first, sweep)
    assert {text.text for text in await texts(bench.redis, bench.prefix)} == set(names)


async def test_what_another_batch_changes_meanwhile_is_settled_by_it(bench: Bench) -> None:
    """Otherwise the second of two texts of a response would wait for the next sweep."""
    storage = HeldStorage(bench)
    consumer = bench.consumer(storage=storage)
    await published(bench, "resp_1")
    first = asyncio.create_task(consumer.work())
    await storage.held.wait()
    for event in (delta(1, "second", "refusal"), done("second", "refusal")):
        await bench.publish(event, response_id="resp_1")
    await consumer.work()
    assert "second" in {text.text for text in await texts(bench.redis, bench.prefix)}
    storage.go.set()
    await first
    assert len(await texts(bench.redis, bench.prefix)) == 2
