"""Redis goes back to an earlier moment, as in a failover: what workers remember is not there any more."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from handlers import BUILT_IN
from handlers.core.routing import RoutingTable
from service.pipeline.decode import Unreadable
from service.pipeline.gathering import Gathered
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
    """A partition on a server that goes back to its last snapshot."""

    def __init__(self, server: MortalServer, redis: Redis) -> None:
        self._server = server
        self._redis = redis
        self.bench = Bench(redis, "deltaloom")

    async def keep(self) -> None:
        """Have everything as it is now outlive the server."""
        await self._redis.save()

    async def come_back(self) -> None:
        """Lose everything since."""
        await self._server.kill()
        await self._server.start(*SNAPSHOTS_ONLY)
        await self._redis.connection_pool.disconnect()


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[Past]:
    """A server of this test alone."""
    server = await MortalServer(tmp_path).start(*SNAPSHOTS_ONLY)
    async with Redis.from_url(server.url) as redis:
        yield Past(server, redis)
    await server.kill()


async def test_what_is_lost_of_a_response_is_told_again(past: Past) -> None:
    """A worker that thinks it stored whose a text is would never store it again."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "a"))
    await worker.work()
    await bench.publish({"type": "response.created", "response": {"safety_identifier": "user"}})
    await past.keep()
    await worker.work()
    await past.come_back()
    await worker.work()
    await bench.publish(done("a"))
    await worker.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert text.safety_identifier == "user"


async def test_an_alert_that_is_lost_is_raised_again_at_once(past: Past) -> None:
    """A worker that thinks it raised it would leave the refusal unnoticed until its end."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "I'm", "refusal"))
    await past.keep()
    await worker.work()
    await past.come_back()
    await worker.work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.text) == ("deltaloom.refusal.opened", "I'm")


async def lose_c(past: Past, worker: Consumer, other: Consumer) -> tuple[list[RawEntry], list[RawEntry]]:
    """The first one has b and c in hand when c is lost; the second one reads what is left."""
    await past.bench.publish(delta(1, "a"))
    await worker.work()
    await past.bench.publish(delta(2, "b"))
    await past.keep()
    await past.bench.publish(delta(3, "c"))
    in_hand = await worker.read()
    await past.come_back()
    return in_hand, await other.read()


async def assert_c_is_new(bench: Bench, worker: Consumer) -> None:
    """Its producer publishes it again, and it is no repeat."""
    await bench.publish(delta(3, "c"), done("abc"))
    await worker.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.delta_count, text.duplicate_count) == ("abc", 3, 0)


async def test_an_entry_that_is_lost_is_not_stored(past: Past) -> None:
    """A worker would add an entry that it has in hand, and its producer publishes it again."""
    worker, other = past.bench.consumer("one"), past.bench.consumer("two")
    in_hand, again = await lose_c(past, worker, other)
    await worker.take(in_hand)
    await other.take(again)
    await assert_c_is_new(past.bench, worker)


async def test_nothing_is_stored_of_a_second_batch_that_is_lost(past: Past) -> None:
    """Two are in hand, and the first one finds out: the second would be taken for one of the new history."""
    bench, worker, other = past.bench, past.bench.consumer("one"), past.bench.consumer("two")
    await bench.publish(delta(1, "a"))
    await worker.work()
    await bench.publish(delta(2, "b"), delta(3, "c"))
    await past.keep()
    await bench.publish(delta(4, "d"))
    in_hand = await worker.read()
    first, second = worker.worker.gathering(in_hand[:1]), worker.worker.gathering(in_hand[1:])
    await past.come_back()
    again = await other.read()
    await worker.worker.take(first)
    await worker.worker.take(second)
    await other.take(again)
    await bench.publish(delta(4, "d"), done("abcd"))
    await worker.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.delta_count, text.duplicate_count) == ("abcd", 4, 0)


async def test_nothing_that_is_lost_is_stored_in_the_second_attempt(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover is when attempts fail: the next one would begin with the whole batch again."""
    worker, other = past.bench.consumer("one"), past.bench.consumer("two")
    in_hand, again = await lose_c(past, worker, other)
    storage: Any = worker.worker._storage  # noqa: SLF001
    commit, attempts = storage.commit, itertools.count(1)

    async def fails_once(*args: Any) -> Any:
        if next(attempts) == 2:
            raise StorageUnavailableError("ConnectionError", "gone once more")
        return await commit(*args)

    monkeypatch.setattr(storage, "commit", fails_once)
    await worker.take(in_hand)
    await other.take(again)
    await assert_c_is_new(past.bench, worker)


async def test_a_batch_that_is_lost_is_let_go(past: Past) -> None:
    """A worker would try for ever to store what nobody has any more, or store it."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "a"))
    await worker.work()
    await past.keep()
    await bench.publish(delta(2, "b"))
    in_hand = await worker.read()
    await past.come_back()
    await worker.take(in_hand)
    await bench.publish(done("a"))
    await worker.work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("a", "verified")


async def test_what_killed_its_readers_is_not_looked_into_again(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover, of all moments, it would kill this one too."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "a"))
    await worker.work()
    await bench.publish(delta(2, "kills"))
    await worker.read()
    await past.keep()
    (entry_id,) = await worker.group.inherit("one")
    entry, history = await worker.group.look_at(entry_id, 1000), worker.worker.history
    assert entry is not None
    await past.come_back()
    monkeypatch.delattr(Gathered, "add")
    why = Unreadable("max_deliveries", "it killed three")
    await worker.worker.bury(entry, 3, why, history)
    (letter,) = await dead_letters(bench.redis, bench.prefix)
    assert (letter.reason, letter.deliveries) == ("max_deliveries", 3)
    assert await bench.pending() == {}


async def test_a_text_is_not_finished_by_an_end_that_is_lost(past: Past) -> None:
    """A text would come out that the stream, as it is now, does not close."""
    bench, worker = past.bench, past.bench.consumer()
    await bench.publish(delta(1, "a"))
    await worker.work()
    await past.keep()
    await bench.publish(COMPLETED)
    await bench.storage.commit(bench.batch(await worker.read()).commit)
    survey = await bench.storage.survey(10_000)
    loaded = await bench.storage.load(survey.ready)
    await past.come_back()
    table = RoutingTable(BUILT_IN.values())
    assert await settle(bench.storage, table, loaded, survey.low_water, survey.history) == 0
    assert await texts(bench.redis, bench.prefix) == []
