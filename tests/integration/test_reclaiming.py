"""Entries of workers that die, hang or are stopped, and the workers that take them over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from deltaloom import GROUP
from deltaloom.events import RefusalDelta
from handlers.core.routing import Handler, Route
from service.ports.storage import StorageUnavailableError
from service.storage import group
from tests.bench import KEEPALIVE, Bench, delta, done
from tests.streams import entries
from tests.waiting import wait_until
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from tests.bench import Consumer

CLAIM_TIME = 1.0


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench with the shortest possible claim time."""
    return Bench(redis, prefix, claim_time=CLAIM_TIME)


async def reclaim_until(consumer: Consumer, condition: Callable[[], Awaitable[object]], message: str) -> None:
    """Reclaim repeatedly, as a worker does, until a condition holds."""

    async def reclaimed() -> object:
        await consumer.reclaimer.reclaim()
        return await condition()

    await wait_until(reclaimed, message=message)


async def test_a_dead_workers_entries_are_taken_over(bench: Bench) -> None:
    """Pending entries of a dead worker are taken over after the claim time."""
    await bench.publish(delta(1, "a"), delta(2, "b"), done("ab"))
    await bench.consumer("dead").read(2)
    survivor = bench.consumer("alive")
    await survivor.work()
    assert await texts(bench.redis, bench.prefix) == []
    await reclaim_until(survivor, lambda: texts(bench.redis, bench.prefix), "the text is finished")
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity, text.delta_count) == ("ab", "verified", 2)
    assert await bench.pending() == {}


async def test_a_live_workers_entries_are_left_to_it(redis: Redis, prefix: str) -> None:
    """A live worker renews its entries, so that no other worker claims them."""
    bench = Bench(redis, prefix, claim_time=30)
    await bench.publish(delta(1, "a"), KEEPALIVE)
    slow, dead, other = bench.consumer("slow"), bench.consumer("dead"), bench.consumer("other")
    (kept,), (left,) = await slow.read(1), await dead.read(1)
    for consumer, entry in ((slow, kept), (dead, left)):
        await redis.xclaim(bench.names.deltas, GROUP, consumer.name, 0, [entry.id], idle=60_000, justid=True)
    with slow.worker.marked_in_progress([kept.id]):
        await slow.reclaimer.renew()
        await other.reclaimer.reclaim()
    assert await bench.pending() == {"slow": 1}


async def test_a_restarted_worker_goes_on_with_its_own_entries_at_once(bench: Bench) -> None:
    """A worker that restarts under the same name takes over its entries at once, without the claim time."""
    await bench.publish(delta(1, "a"), done("a"))
    await bench.consumer("pod-0").read()
    await bench.consumer("pod-0").reclaimer.adopt()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]


async def test_entries_trimmed_while_pending_are_reported_as_lost(bench: Bench) -> None:
    """Pending entries that were trimmed are counted and logged as lost."""
    await bench.publish(delta(1, "a"), delta(2, "b"), done("ab"))
    await bench.consumer("dead").read()
    await bench.redis.xtrim(bench.names.deltas, maxlen=1, approximate=False)
    survivor = bench.consumer("alive")
    with capture_logs() as lines:
        await reclaim_until(survivor, lambda: texts(bench.redis, bench.prefix), "what is left is finished")
    assert (await counts(bench.redis, bench.prefix))["lost"] == 2
    assert "entries trimmed before processing" in [line["event"] for line in lines]
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("ab", "repaired")


class ReaderDiedError(BaseException):
    """An error that ends the reader of an entry, as a crash would."""


def deadly(event: RefusalDelta, _origin: Any) -> list[Any]:
    """Raise `ReaderDiedError` for the delta "poison"; otherwise return no effects."""
    if event.delta == "poison":
        raise ReaderDiedError
    return []


DEADLY = Handler("deadly", (Route(RefusalDelta, deadly),))


async def test_an_entry_that_kills_its_readers_takes_no_other_with_it(bench: Bench) -> None:
    """An entry that kills its readers becomes a dead letter, and the rest of its batch is processed."""
    words = ["one", "two", "poison", "four", "five"]
    await bench.publish(*(delta(n, word, "refusal") for n, word in enumerate(words)), KEEPALIVE)
    deaths = 0
    with pytest.raises(ReaderDiedError):
        await bench.consumer("reader 0", [DEADLY]).work()

    async def made_a_dead_letter() -> bool:
        return bool(await dead_letters(bench.redis, bench.prefix))

    while not await made_a_dead_letter():
        deaths += 1
        reader = bench.consumer(f"reader {deaths}", [DEADLY])
        try:
            await reclaim_until(reader, made_a_dead_letter, "the entry is a dead letter")
        except ReaderDiedError:
            continue
    (letter,) = await dead_letters(bench.redis, bench.prefix)
    assert (letter.reason, letter.deliveries) == ("max_deliveries", 5)
    assert '"poison' in letter.entry.replace("\\", "")
    assert deaths == 5
    await reclaim_until(bench.consumer("last"), lambda: _nothing_pending(bench), "the rest is done")
    # The handler returns no effects, so that its events are only counted.
    assert (await counts(bench.redis, bench.prefix)) == {
        "type:keepalive": 1,
        "type:response.refusal.delta": 4,
    }


async def _nothing_pending(bench: Bench) -> bool:
    return await bench.pending() == {}


async def test_consumers_that_are_gone_are_removed_unless_they_hold_something(
    redis: Redis, prefix: str
) -> None:
    """Idle consumers without pending entries are removed; those with pending entries stay."""
    bench = Bench(redis, prefix, claim_time=1)
    await bench.publish(delta(1, "a"))
    await bench.consumer("holds").read(1)
    # Redis 7.0 does not create a consumer that reads nothing.
    await redis.xgroup_createconsumer(bench.names.deltas, GROUP, "empty")

    async def removed() -> list[str]:
        return await bench.consumer("alive").group.remove_idle_consumers(1)

    assert await wait_until(removed, message="a consumer is removed") == ["empty"]
    left = {info["name"] for info in await redis.xinfo_consumers(bench.names.deltas, GROUP)}
    assert left - {b"alive"} == {b"holds"}


async def test_a_worker_that_leaves_releases_its_entries(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops releases all its entries, so that others take them without waiting."""
    monkeypatch.setattr(group, "MAX_ENTRIES", 2)
    await bench.publish(delta(1, "a"), delta(2, "b"), done("ab"), KEEPALIVE, KEEPALIVE)
    leaving = bench.consumer("leaving")
    await leaving.read()
    assert await leaving.group.leave() == 5
    await bench.consumer("next").reclaimer.reclaim()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["ab"]
    assert await bench.pending() == {}
    assert await leaving.group.leave() == 0
    assert "leaving" not in await leaving.group.consumers()


@pytest.mark.parametrize("loss", ["group", "stream"])
async def test_periodic_tasks_while_the_group_is_lost(bench: Bench, loss: str) -> None:
    """A lost stream or group is created again by any periodic task, without a traceback."""
    consumer = bench.consumer()
    in_progress = [b"1-1"]
    for ask in (
        consumer.group.consumers,
        consumer.reclaimer.reclaim,
        partial(consumer.group.renew, in_progress),
        partial(consumer.group.adopt, "gone"),
        partial(consumer.group.deliver, ["1-1"], 2),
        partial(consumer.group.trim, 1000),
        consumer.group.leave,
        consumer.reclaimer.remove_idle_consumers,
    ):
        await consumer.group.ensure()
        if loss == "group":
            await bench.redis.xgroup_destroy(bench.names.deltas, GROUP)
        else:
            await bench.redis.delete(bench.names.deltas)
        try:
            await ask()
        except StorageUnavailableError:
            assert await bench.redis.xinfo_groups(bench.names.deltas), "it is made again"


async def test_the_input_is_trimmed_only_behind_every_group(bench: Bench) -> None:
    """The input is trimmed only up to the entry that all groups have acknowledged."""
    await bench.publish(*[KEEPALIVE] * 500)
    consumer = bench.consumer()
    await consumer.group.ensure()
    await bench.redis.xgroup_create(bench.names.deltas, "audit", id="0")
    await consumer.work(450)
    assert await consumer.group.trim(10**9) == 0, "another group has read nothing"
    await bench.redis.xreadgroup("audit", "a", {bench.names.deltas: ">"}, count=300)
    assert await consumer.group.trim(10**9) == 0, "another group has acknowledged nothing"
    ids = [
        each["message_id"]
        for each in await bench.redis.xpending_range(bench.names.deltas, "audit", "-", "+", 300)
    ]
    await bench.redis.xack(bench.names.deltas, "audit", *ids)
    assert 0 < await consumer.group.trim(10**9) < 300
    assert len(await entries(bench.redis, bench.names.deltas)) >= 200, (
        "entries that a group has not read stay"
    )


async def test_the_outputs_are_trimmed_by_age(bench: Bench) -> None:
    """Texts and alerts are removed after the retention."""
    for n in range(250):
        await bench.publish(delta(1, "no", "refusal"), done("no", "refusal"), response_id=f"resp_{n}")
    consumer = bench.consumer()
    await consumer.work()
    await consumer.group.trim(10**9)
    assert (len(await texts(bench.redis, bench.prefix)), len(await alerts(bench.redis, bench.prefix))) == (
        250,
        500,
    )
    await consumer.group.trim(-1000)
    assert (len(await texts(bench.redis, bench.prefix)), len(await alerts(bench.redis, bench.prefix))) == (
        0,
        0,
    )


async def test_too_many_open_responses_give_up_the_longest_silent(redis: Redis, prefix: str) -> None:
    """The responses that were silent for longest are abandoned beyond `max_open_responses`."""
    bench = Bench(redis, prefix, max_open_responses=3)
    for n in range(5):
        await bench.publish(delta(1, f"text {n}"), response_id=f"resp_{n}")
        await _a_millisecond_passes(redis)
    consumer = bench.consumer()
    await consumer.work()
    await consumer.worker.sweep()
    given_up = await texts(bench.redis, bench.prefix)
    assert [(text.text, text.status, text.reason) for text in given_up] == [
        ("text 0", "abandoned", "open_limit"),
        ("text 1", "abandoned", "open_limit"),
    ]


async def _a_millisecond_passes(redis: Redis) -> None:
    before = await redis.time()

    async def passed() -> bool:
        now = await redis.time()
        return (now[0], now[1] // 1000) > (before[0], before[1] // 1000)

    await wait_until(passed, message="the server's clock goes on", interval=0.001)
