"""Redis returns to an earlier state, as in a failover: the workers' caches of it are then wrong."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from handlers import BUILT_IN
from handlers.core.routing import RoutingTable
from service.pipeline.decode import Unreadable
from service.pipeline.decoded_batch import DecodedBatch
from service.pipeline.settling import settle
from service.ports.storage import StorageUnavailableError
from tests.bench import COMPLETED, Bench, delta, done
from tests.mortal import MortalServer
from tests.workers import alerts, dead_letters, texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.ports.storage import RawEntry
    from tests.bench import Consumer

SNAPSHOTS_ONLY = ("--appendonly", "no")


class Past:
    """A partition on a server that can return to its last snapshot."""

    def __init__(self, server: MortalServer, redis: Redis) -> None:
        self._server = server
        self._redis = redis
        self.bench = Bench(redis, "deltaloom")

    async def save(self) -> None:
        """Save a snapshot of the current state."""
        await self._redis.save()

    async def restore(self) -> None:
        """Restart the server with its last snapshot, without the changes since."""
        await self._server.kill()
        await self._server.start(*SNAPSHOTS_ONLY)
        await self._redis.connection_pool.disconnect()


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[Past]:
    """Run a server without an append-only file for one test alone."""
    server = await MortalServer(tmp_path).start(*SNAPSHOTS_ONLY)
    async with Redis.from_url(server.url) as redis:
        yield Past(server, redis)
    await server.kill()


async def test_lost_context_is_sent_again(past: Past) -> None:
    """Context that was lost with the server's state is sent again. Otherwise the text would lack it."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "a"))
    await worker.work()
    await bench.publish({"type": "response.created", "response": {"safety_identifier": "user"}})
    await past.save()
    await worker.work()
    await past.restore()
    await worker.work()
    await bench.publish(done("a"))
    await worker.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert text.safety_identifier == "user"


async def test_an_alert_that_is_lost_is_raised_again_at_once(past: Past) -> None:
    """An alert that was lost with the server's state is raised again with its redelivered entry."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "I'm", "refusal"))
    await past.save()
    await worker.work()
    await past.restore()
    await worker.work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.text) == ("deltaloom.refusal.opened", "I'm")


async def lose_c(past: Past, worker: Consumer, other: Consumer) -> tuple[list[RawEntry], list[RawEntry]]:
    """Lose entry c while one consumer holds b and c; return its entries, and those that `other` reads."""
    await past.bench.publish(delta(1, "a"))
    await worker.work()
    await past.bench.publish(delta(2, "b"))
    await past.save()
    await past.bench.publish(delta(3, "c"))
    in_progress = await worker.read()
    await past.restore()
    return in_progress, await other.read()


async def assert_c_is_new(bench: Bench, worker: Consumer) -> None:
    """Publish c again, and assert that it is counted as new, not as a repeat."""
    await bench.publish(delta(3, "c"), done("abc"))
    await worker.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.delta_count, text.duplicate_count) == ("abc", 3, 0)


async def test_an_entry_that_is_lost_is_not_stored(past: Past) -> None:
    """A worker does not store an entry that the server has lost, since its producer may publish it again."""
    worker, other = past.bench.consumer("one"), past.bench.consumer("two")
    in_progress, again = await lose_c(past, worker, other)
    await worker.process(in_progress)
    await other.process(again)
    await assert_c_is_new(past.bench, worker)


async def test_nothing_is_stored_of_a_second_batch_that_is_lost(past: Past) -> None:
    """A lost entry is not stored either if the worker noticed the lost state in an earlier batch."""
    bench, worker, other = past.bench, past.bench.consumer("one"), past.bench.consumer("two")
    await bench.publish(delta(1, "a"))
    await worker.work()
    await bench.publish(delta(2, "b"), delta(3, "c"))
    await past.save()
    await bench.publish(delta(4, "d"))
    in_progress = await worker.read()
    first, second = worker.worker.builder(in_progress[:1]), worker.worker.builder(in_progress[1:])
    await past.restore()
    again = await other.read()
    await worker.worker.process(first)
    await worker.worker.process(second)
    await other.process(again)
    await bench.publish(delta(4, "d"), done("abcd"))
    await worker.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.delta_count, text.duplicate_count) == ("abcd", 4, 0)


async def test_nothing_that_is_lost_is_stored_in_the_second_attempt(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retried commit leaves out the lost entries too, although it begins with the whole batch again."""
    worker, other = past.bench.consumer("one"), past.bench.consumer("two")
    in_progress, again = await lose_c(past, worker, other)
    storage: Any = worker.worker._storage  # noqa: SLF001
    commit, attempts = storage.commit, itertools.count(1)

    async def fails_once(*args: Any) -> Any:
        if next(attempts) == 2:
            raise StorageUnavailableError("ConnectionError", "gone once more")
        return await commit(*args)

    monkeypatch.setattr(storage, "commit", fails_once)
    await worker.process(in_progress)
    await other.process(again)
    await assert_c_is_new(past.bench, worker)


async def test_a_batch_that_is_lost_is_dropped(past: Past) -> None:
    """A batch of lost entries only is dropped, instead of retried forever."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "a"))
    await worker.work()
    await past.save()
    await bench.publish(delta(2, "b"))
    in_progress = await worker.read()
    await past.restore()
    await worker.process(in_progress)
    await bench.publish(done("a"))
    await worker.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("a", "verified")


async def test_an_entry_that_killed_its_readers_is_not_decoded_again(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead letter is made without decoding the entry again, since decoding may have killed workers."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "a"))
    await worker.work()
    await bench.publish(delta(2, "kills"))
    await worker.read()
    await past.save()
    (entry_id,) = await worker.group.adopt("one")
    entry, replication_id = await worker.group.look_at(entry_id, 1000), worker.worker.replication_id
    assert entry is not None
    await past.restore()
    monkeypatch.delattr(DecodedBatch, "add")
    why = Unreadable("max_deliveries", "it killed three")
    await worker.worker.dead_letter(entry, 3, why, replication_id)
    (letter,) = await dead_letters(bench.redis, bench.prefix)
    assert (letter.reason, letter.deliveries) == ("max_deliveries", 3)
    assert await bench.pending() == {}


async def test_a_text_is_not_finished_by_an_end_that_is_lost(past: Past) -> None:
    """A text is not finished by an end event that the server has lost."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "a"))
    await worker.work()
    await past.save()
    await bench.publish(COMPLETED)
    await bench.storage.commit(bench.batch(await worker.read()).commit)
    survey = await bench.storage.survey(10_000)
    loaded = await bench.storage.load(survey.ready)
    await past.restore()
    table = RoutingTable(BUILT_IN.values())
    assert await settle(bench.storage, table, loaded, survey.low_water, survey.replication_id) == 0
    assert await texts(bench.redis, bench.prefix) == []
