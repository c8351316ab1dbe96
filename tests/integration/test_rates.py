"""Tests of refusal rates and spikes: each response counts once, and each spike raises one alert."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import Partitions
from service.keys import OTHER, Keys
from service.rates.proportions import Count
from service.rates.spikes import LeaderLock, SpikeWatch, Subject, changes, thresholds_of
from service.settings import Settings
from service.storage import buckets, settle_plan
from service.storage.buckets import Series, baseline_of, window_of
from service.storage.redis_rates import GOOD_FOR_MS, RedisRates
from tests.bench import COMPLETED, KEEPALIVE, Bench, delta, done
from tests.streams import add
from tests.waiting import wait_until
from tests.workers import alerts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from service.rates.spikes import Change, Rates

MODEL, TENANT = Subject("model", "gpt-4o"), Subject("tenant", "acme")
PROVIDER = Subject("provider", "openai")
CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-4o"}}
REFUSAL = (delta(1, "I can't", "refusal"), done("I can't", "refusal"))


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench on a prefix of its own."""
    return Bench(redis, prefix, spike_responses=10)


def storage(bench: Bench, consumer: str = "one") -> RedisRates:
    """Return the rates as a worker with this consumer name reads them."""
    return RedisRates(bench.redis, bench.settings.model_copy(update={"consumer": consumer}))


async def counted(bench: Bench) -> Rates:
    """Return the current counts."""
    rates = storage(bench)
    return await rates.counted(await rates.now_ms())


async def publish(bench: Bench, name: str, *, refused: bool = False, **context: str) -> None:
    """Publish a whole response."""
    context = context or {"model": "gpt-4o", "tenant": "acme"}
    await bench.publish(*(REFUSAL if refused else ()), COMPLETED, response_id=name, **context)


async def test_a_response_counts_when_it_is_over(bench: Bench) -> None:
    """A response is counted when it has ended, with the model and tenant known by then."""
    await bench.publish(CREATED, *REFUSAL, tenant="acme")
    await bench.consumer().work()
    assert (await counted(bench)).window == {}
    await bench.publish(COMPLETED)
    await bench.publish(CREATED, COMPLETED, response_id="resp_2")
    await bench.consumer().work()
    rates = await counted(bench)
    assert rates.window == {MODEL: Count(2, 1), TENANT: Count(1, 1)}
    assert rates.baseline == {MODEL: Count(), TENANT: Count()}
    assert rates.subjects == [MODEL, TENANT]


async def test_by_provider_and_blocked_apart(bench: Bench) -> None:
    """Responses are counted by provider too, and blocked ones separately from refused ones."""
    reason = {"reason": "content_filter"}
    filtered = {"type": "response.incomplete", "response": {"incomplete_details": reason}}
    await bench.publish(*REFUSAL, COMPLETED, model="gpt-4o", provider="openai")
    await bench.publish(filtered, response_id="resp_2", model="gpt-4o", provider="openai")
    await bench.publish(COMPLETED, response_id="resp_3", model="gpt-4o", provider="a:b", tenant="acme")
    await bench.consumer().work()
    assert (await counted(bench)).window == {
        MODEL: Count(3, 1, 1),
        TENANT: Count(1),
        PROVIDER: Count(2, 1, 1),
        Subject("provider", "a:b"): Count(1),
    }


async def test_fields_of_a_later_version_are_skipped(bench: Bench) -> None:
    """Unknown fields of a later version are skipped, and the others are read."""
    rates, series = storage(bench), window_of(bench.settings)
    now_ms = await rates.now_ms()
    fields = {
        "responses:model:gpt-4o": 4,
        "refused:model:gpt-4o": 1,
        "flagged:model:gpt-4o": 2,
        "responses.region:eu": 3,
        "total": 9,
    }
    bucket = Keys(bench.names).rates(series.width_ms, series.start(now_ms))
    await bench.redis.hset(bucket, mapping=fields)  # type: ignore[arg-type]  # the type of a dict is invariant
    await bench.redis.expire(bucket, 60)
    assert (await rates.counted(now_ms)).window == {MODEL: Count(4, 1), Subject("region", "eu"): Count(3)}


async def test_several_refusals_are_one_refused_response(bench: Bench) -> None:
    """Several refusals in one response count as one refused response."""
    other = [{**event, "output_index": 1, "item_id": "item_2"} for event in REFUSAL]
    await bench.publish(*REFUSAL, *other, COMPLETED, model="gpt-4o")
    await bench.consumer().work()
    assert (await counted(bench)).window == {MODEL: Count(1, 1)}


async def test_a_refusal_that_only_the_final_copy_has_counts(bench: Bench) -> None:
    """A refusal counts even if only the final copy contains it."""
    item = {"type": "message", "id": "msg_1", "content": [{"type": "refusal", "refusal": "No."}]}
    await bench.publish({"type": "response.completed", "response": {"output": [item]}}, model="gpt-4o")
    await bench.consumer().work()
    assert (await counted(bench)).window == {MODEL: Count(1, 1)}


async def test_it_counts_once_however_often_it_ends(bench: Bench) -> None:
    """Repeated end events and redelivered batches count a response once."""
    error = {"type": "error", "code": "server_error"}
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error"}}}
    await bench.publish(CREATED, error, failed)
    entries = await bench.consumer("stopped").read()
    for name in ("one", "two"):
        await bench.consumer(name).process(entries)
    await bench.publish(CREATED, failed)
    await bench.consumer().work()
    await publish(bench, "resp_2", refused=True)
    await bench.consumer().work()
    await publish(bench, "resp_2", refused=True)
    await bench.consumer().work()
    assert (await counted(bench)).window == {MODEL: Count(2, 1), TENANT: Count(1, 1)}


async def test_entries_in_other_hands_are_waited_for(bench: Bench) -> None:
    """A response is counted only after all earlier entries, which may contain its refusal, are stored."""
    await bench.publish(*REFUSAL, COMPLETED, model="gpt-4o")
    first, second = await bench.consumer("one").read(2), await bench.consumer("two").read(1)
    await bench.consumer().process(second)
    assert (await counted(bench)).window == {}
    await bench.consumer().process(first)
    assert (await counted(bench)).window == {MODEL: Count(1, 1)}


async def test_an_abandoned_response_counts_too(redis: Redis, prefix: str) -> None:
    """An abandoned response counts too, since many refused responses are cut off."""
    bench = Bench(redis, prefix, idle_timeout=0.001)
    await bench.publish(REFUSAL[0], model="gpt-4o")
    consumer = bench.consumer()
    await consumer.work()

    async def given_up() -> bool:
        await consumer.worker.sweep()
        return bool((await counted(bench)).window)

    await wait_until(given_up, message="the response is given up")
    assert (await counted(bench)).window == {MODEL: Count(1, 1)}
    assert await redis.zcard(bench.names.name("open")) == 0


async def test_without_a_response_id_nothing_counts(bench: Bench) -> None:
    """Responses without an id are not counted, since their items would count separately."""
    item = {"type": "message", "id": "item_1", "content": []}
    end = '{"type": "response.completed", "response": {"output": [%s]}}'
    for event in (*(json.dumps(each) for each in REFUSAL), end % json.dumps(item)):
        await add(bench.redis, bench.names.deltas, {"event": event, "model": "gpt-4o"})
    await bench.consumer().work()
    assert [alert.type for alert in await alerts(bench.redis, bench.prefix)] != []
    assert (await counted(bench)).window == {}


async def test_off(redis: Redis, prefix: str) -> None:
    """`spike_window = 0` turns counting off, and writes no keys."""
    bench = Bench(redis, prefix, spike_window=0)
    await publish(bench, "resp_1", refused=True)
    await bench.consumer().work()
    assert await redis.keys(bench.names.name("rates:*")) == []
    assert await redis.hexists(bench.names.name("state:response:resp_1"), "over") == 0


async def test_buckets_expire_when_nobody_asks_for_them_any_more(bench: Bench) -> None:
    """Buckets expire when no series includes them any more."""
    await publish(bench, "resp_1")
    await bench.consumer().work()
    now_ms = await storage(bench).now_ms()
    for series in (window_of(bench.settings), baseline_of(bench.settings)):
        (name,) = await bench.redis.keys(bench.names.name(f"rates:{series.width_ms}:*"))
        key = bytes(name).decode()  # type: ignore[arg-type]  # the type includes clients that decode
        start = int(key.rpartition(":")[2])
        assert start <= now_ms < start + 2 * series.width_ms
        assert await bench.redis.pexpiretime(key) == series.expires(start)


async def publish_at(bench: Bench, at_ms: int) -> None:
    """Publish the end of a response in an entry with this time in its id."""
    fields: Any = {
        "event": '{"type": "response.completed", "response": {}}',
        "response_id": "r",
        "model": "gpt-4o",
    }
    await bench.redis.xadd(bench.names.deltas, fields, id=f"{at_ms}-0")
    await bench.consumer().work()


async def test_entries_of_long_ago_are_not_counted(bench: Bench) -> None:
    """Otherwise a replay of last year's stream would create a key for each of its hours."""
    await publish_at(bench, 1)
    assert await bench.redis.keys(bench.names.name("rates:*")) == []


@pytest.mark.parametrize("at_ms", [4_000_000_000_000, 2**63], ids=["the year 2096", "no date"])
async def test_entries_of_the_future_are_counted_now(bench: Bench, at_ms: int) -> None:
    """Otherwise a wrong clock would hide refusals, or create keys that never expire."""
    await publish_at(bench, at_ms)
    assert (await counted(bench)).window == {MODEL: Count(1)}


async def test_names_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number and the length of counted names are limited; the rest is counted as `OTHER`."""
    monkeypatch.setattr(settle_plan, "MAX_NAMES", 3)
    for number in range(6):
        await publish(bench, f"resp_{number}", refused=number == 0, tenant=f"tenant-{number}")
    await publish(bench, "long", tenant="x" * 250)
    consumer = bench.consumer()
    for _ in range(13):
        await consumer.work(1)
    rates = await counted(bench)
    assert sum(count.responses for count in rates.window.values()) == 7
    assert rates.window[Subject("tenant", OTHER)].responses == 4
    assert len(rates.window) == 4
    assert all(len(subject.name) <= buckets.NAME_LENGTH for subject in rates.window)


async def test_partitions_add_up(redis: Redis, prefix: str) -> None:
    """The counts of all partitions are added."""
    settings = Settings(prefix=prefix, partitions=3)
    rates, series = RedisRates(redis, settings), window_of(settings)
    now_ms = await rates.now_ms()
    for names in settings.names.all:
        bucket = Keys(names).rates(series.width_ms, series.start(now_ms))
        await redis.hset(bucket, mapping={"responses:model:gpt-4o": 4, "refused:model:gpt-4o": 1})
        await redis.expire(bucket, 60)
    assert (await rates.counted(now_ms)).window == {MODEL: Count(12, 3)}


def test_every_time_is_in_one_bucket_that_is_read() -> None:
    """A point in time belongs to exactly one bucket of a series."""
    series, keys = Series(100, 1000), Keys(Partitions(0, "p").all[0])
    for now_ms in (1_000_000, 1_000_001, 1_000_099):
        names = series.keys(keys, now_ms)
        assert len(set(names)) == 11
        assert keys.rates(100, series.start(now_ms)) == names[-1]
        assert keys.rates(100, series.start(now_ms - 1000)) == names[0]
        assert series.expires(series.since(now_ms)) > now_ms


# -------------------------------------------------------------------------------- spikes


async def count_by_hand(
    bench: Bench, window: Count, baseline: Count, scope: str = ":model", name: str = "gpt-4o"
) -> None:
    """Replace all counts by these ones of one subject."""
    for bucket in await bench.redis.keys(bench.names.name("rates:*")):  # several, if the hour has changed
        await bench.redis.delete(bucket)
    now_ms = await storage(bench).now_ms()
    for series, count in (
        (window_of(bench.settings), window),
        (baseline_of(bench.settings), window.plus(baseline)),
    ):
        bucket = Keys(bench.names).rates(series.width_ms, series.start(now_ms))
        fields = {f"{what}{scope}:{name}": number for what, number in count._asdict().items()}
        await bench.redis.hset(bucket, mapping=fields)  # type: ignore[arg-type]  # the type of a dict is invariant
        await bench.redis.expire(bucket, 600)


async def raised(bench: Bench) -> list[str]:
    """Return the types of the alerts."""
    return [
        alert.type.removeprefix("deltaloom.refusal.") for alert in await alerts(bench.redis, bench.prefix)
    ]


async def check_spikes(bench: Bench, consumer: str = "one") -> None:
    """Check for spikes as a worker of this name, as if the last check was long ago."""
    await bench.redis.delete(bench.names.name("spike-turn"))
    await SpikeWatch(storage(bench, consumer), thresholds_of(bench.settings), every=30).look()


async def test_a_spike_begins_and_ends_once(bench: Bench) -> None:
    """A spike raises one alert at its begin and one at its end, however many workers check."""
    await count_by_hand(bench, Count(100, 40), Count(5_000, 50))
    for consumer in ("one", "two", "one"):
        await check_spikes(bench, consumer)
    assert await raised(bench) == ["spike"]
    assert set(await storage(bench).spikes()) == {MODEL}
    await count_by_hand(bench, Count(100, 1), Count(5_000, 90))
    for consumer in ("two", "one"):
        await check_spikes(bench, consumer)
    assert await raised(bench) == ["spike", "spike.ended"]
    assert await storage(bench).spikes() == {}
    began, ended = await alerts(bench.redis, bench.prefix)
    assert ended.id == began.id.replace("spike_", "spike_ended_")
    await count_by_hand(bench, Count(100, 60), Count(5_000, 90))
    await check_spikes(bench)
    assert await raised(bench) == ["spike", "spike.ended", "spike"]
    assert (await alerts(bench.redis, bench.prefix))[2].id != began.id
    assert 0 < await bench.redis.ttl(bench.names.name("spikes")) <= bench.settings.retention


async def test_a_spike_of_a_provider_is_kept_apart(bench: Bench) -> None:
    """Spikes of providers are stored under a key of their own, since v0.1.0 cannot read them."""
    spiking, calm, before = Count(100, 40, 3), Count(100, 1), Count(5_000, 50, 9)
    await count_by_hand(bench, spiking, before, ".provider", "openai")
    for consumer in ("one", "two"):
        await check_spikes(bench, consumer)
    assert set(await storage(bench).spikes()) == {PROVIDER}
    assert await bench.redis.hkeys(bench.names.name("spikes")) == [b"version"]
    assert await bench.redis.hkeys(bench.names.name("provider-spikes")) == [b"provider:openai"]
    assert 0 < await bench.redis.ttl(bench.names.name("provider-spikes")) <= bench.settings.retention
    await count_by_hand(bench, calm, before, ".provider", "openai")
    await check_spikes(bench)
    began, ended = await alerts(bench.redis, bench.prefix)
    assert (began.provider, began.model, ended.provider) == ("openai", None, "openai")
    assert (began.source, ended.source) == (bench.prefix, bench.prefix)
    assert began.rate
    assert (began.rate.by, began.rate.blocked, began.rate.baseline_blocked) == ("provider", 3, 9)
    assert await storage(bench).spikes() == {}


async def test_one_worker_at_a_time_checks(bench: Bench) -> None:
    """Workers take turns to check for spikes."""
    rates = storage(bench)
    assert await rates.acquire_leader_lock(60_000) is not None
    assert await storage(bench, "two").acquire_leader_lock(60_000) is None
    assert 0 < await bench.redis.pttl(bench.names.name("spike-turn")) <= 60_000


async def test_an_overtaken_check_writes_nothing(bench: Bench) -> None:
    """A check that another worker has overtaken writes nothing. Otherwise both would raise the alert."""
    await count_by_hand(bench, Count(100, 40), Count(5_000, 50))
    first, second = storage(bench, "one"), storage(bench, "two")
    turns = []
    for rates in (first, second):
        turns.append(await rates.acquire_leader_lock(1))
        await bench.redis.delete(bench.names.name("spike-turn"))
    await check_spikes(bench)
    for rates, turn in zip((first, second), turns, strict=True):
        assert turn is not None
        assert not await rates.write(turn, await seen(bench))
    assert await raised(bench) == ["spike"]


async def seen(bench: Bench) -> list[Change]:
    """Return the changes that a worker would write which knows of no spike."""
    rates = await counted(bench)
    return changes(LeaderLock(rates.now_ms, 0, {}), rates, thresholds_of(bench.settings))


async def test_an_old_check_writes_nothing(bench: Bench) -> None:
    """A check that was interrupted for too long writes nothing."""
    await count_by_hand(bench, Count(100, 40), Count(5_000, 50))
    rates = storage(bench)
    turn = await rates.acquire_leader_lock(1)
    assert turn is not None
    old = replace(turn, now_ms=turn.now_ms - GOOD_FOR_MS - 1)
    assert not await rates.write(old, await seen(bench))
    assert await raised(bench) == []
    assert await rates.write(turn, await seen(bench))
    assert await raised(bench) == ["spike"]


async def test_a_reply_that_is_lost_writes_nothing_twice(bench: Bench) -> None:
    """redis-py repeats a command after a lost reply: the alert is still raised once."""
    await count_by_hand(bench, Count(100, 40), Count(5_000, 50))
    rates = storage(bench)
    turn = await rates.acquire_leader_lock(1)
    assert turn is not None
    change = await seen(bench)
    written = await asyncio.gather(*(rates.write(turn, change) for _ in range(5)))
    assert sum(written) == 1
    assert await raised(bench) == ["spike"]


async def test_nothing_is_a_spike_of_five_responses(bench: Bench) -> None:
    """A few refused responses do not make a spike."""
    await count_by_hand(bench, Count(5, 5), Count(5_000, 50))
    await check_spikes(bench)
    await bench.publish(KEEPALIVE)
    assert await raised(bench) == []
