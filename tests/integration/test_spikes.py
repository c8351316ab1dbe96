"""Tests of rates and spikes with real workers: exact counts and single alerts, despite kills and restarts."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import Partitions, StreamNames
from service.rates.proportions import Count
from service.rates.spikes import Subject
from service.settings import Settings
from service.storage.redis_rates import RedisRates
from tests.bench import COMPLETED, delta, done
from tests.service.cli.command import deltaloom, environment
from tests.streams import entries
from tests.waiting import wait_until
from tests.workers import alerts, running_workers, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom import ModerationAlert

MODEL = Subject("model", "gpt-4o")
QUICK: dict[str, Any] = {"claim_time": 1, "sweep_interval": 0.2, "batch_size": 7}
SPIKES: dict[str, Any] = {"spike_window": 8, "spike_baseline": 3600, "spike_responses": 20}
"""A window long enough for delays of a worker, and short enough for a test to wait until it ends."""

REFUSAL = [delta(1, "I can't", "refusal"), done("I can't", "refusal")]


async def publish(redis: Redis, *names: str, stream: str, refused: bool, model: str = "gpt-4o") -> None:
    """Publish whole responses, one event per entry; repeat each end event, as a producer's retry does."""
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        for event in [*(REFUSAL if refused else []), COMPLETED, COMPLETED]:
            context = {"response_id": name, "model": model, "tenant": f"of-{model}"}
            fields: dict[Any, Any] = {"event": json.dumps(event), **context}
            pipeline.xadd(stream, fields)
    await pipeline.execute()


async def counted(redis: Redis, settings: Settings) -> dict[Subject, Count]:
    """Return the counts of window and baseline together, by subject."""
    rates = RedisRates(redis, settings)
    found = await rates.counted(await rates.now_ms())
    return {
        subject: found.window.get(subject, Count()).plus(found.baseline.get(subject, Count()))
        for subject in found.subjects
    }


async def test_every_response_counts_once_whoever_dies(redis: Redis, redis_url: str, prefix: str) -> None:
    """Responses are counted once, although a worker is killed and responses are repeated."""
    names, settings = StreamNames(prefix), Settings(prefix=prefix)
    expected: Counter[Subject] = Counter()
    refused: Counter[Subject] = Counter()
    async with running_workers(redis_url, prefix, 2, **QUICK) as workers:
        for number in range(120):
            model, is_refused = f"m{number % 3}", number % 5 == 0
            for subject in (Subject("model", model), Subject("tenant", f"of-{model}")):
                expected[subject] += 1
                refused[subject] += is_refused
            await publish(redis, f"resp_{number}", refused=is_refused, model=model, stream=names.deltas)
            if number == 60:
                await workers[0].kill()
        await wait_until_settled(redis, prefix)
        wanted = {subject: Count(n, refused[subject]) for subject, n in expected.items()}
        assert await counted(redis, settings) == wanted
    async with running_workers(redis_url, prefix, 1, **QUICK):
        await publish(redis, "resp_0", refused=True, model="m0", stream=names.deltas)
        await wait_until_settled(redis, prefix)
        assert await counted(redis, settings) == wanted


async def spikes(redis: Redis, prefix: str) -> list[ModerationAlert]:
    """Return the alerts about spikes."""
    return [alert for alert in await alerts(redis, prefix) if alert.rate is not None]


@pytest.mark.timeout(120)
async def test_a_spike_rings_once_and_ends_once_through_a_kill(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A spike raises one alert at its begin and one at its end, although a worker is killed between them."""
    stream = StreamNames(prefix).deltas
    settings = {**QUICK, **SPIKES}
    async with running_workers(redis_url, prefix, 2, **settings) as workers:
        await publish(redis, *(f"calm_{number}" for number in range(100)), refused=False, stream=stream)
        await wait_until_settled(redis, prefix)
        rates = RedisRates(redis, Settings(prefix=prefix, **SPIKES))

        async def all_is_before() -> bool:
            found = await rates.counted(await rates.now_ms())
            return not found.window and found.baseline.get(MODEL) == Count(100, 0)

        await wait_until(all_is_before, message="the window has moved on")
        assert await spikes(redis, prefix) == []
        await publish(redis, *(f"refused_{number}" for number in range(40)), refused=True, stream=stream)
        await wait_until(lambda: _came(redis, prefix, 2), message="the spikes are raised")
        await workers[0].kill()
        await wait_until(lambda: _came(redis, prefix, 4), 60, message="the spikes end")
        await wait_until_settled(redis, prefix)
    raised = await spikes(redis, prefix)
    assert Counter((alert.type, alert.model, alert.tenant) for alert in raised) == {
        (f"deltaloom.refusal.{phase}", model, tenant): 1
        for phase in ("spike", "spike.ended")
        for model, tenant in (("gpt-4o", None), (None, "of-gpt-4o"))
    }
    assert len({alert.id for alert in raised}) == 4
    for alert in raised:
        assert alert.rate is not None
        # On a slow machine the window moves past the first refused responses before all of them have come.
        assert alert.rate.baseline_responses - alert.rate.baseline_refused == 100
    assert len(await alerts(redis, prefix)) == 2 * 40 + 4


async def _came(redis: Redis, prefix: str, number: int) -> bool:
    return len(await spikes(redis, prefix)) >= number


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_partitions_are_one(redis: Redis, redis_url: str, prefix: str) -> None:
    """The counts of all partitions are added: a spike raises one alert, in the first partition."""
    partitions = Partitions(4, prefix)
    settings = {**QUICK, **SPIKES, "partitions": 4}
    rates = RedisRates(redis, Settings(prefix=prefix, partitions=4, **SPIKES))

    async def all_is_before() -> bool:
        found = await rates.counted(await rates.now_ms())
        return not found.window and found.baseline.get(MODEL) == Count(60, 0)

    async def raised() -> Counter[str]:
        written = [each for names in partitions.all for each in await entries(redis, names.alerts)]
        types = [fields[b"type"].decode() for _, fields in written]
        return Counter(kind for kind in types if kind.startswith("deltaloom.refusal.spike"))

    async def came_and_went() -> bool:
        return await raised() == {"deltaloom.refusal.spike": 2, "deltaloom.refusal.spike.ended": 2}

    async with (
        workers_in_process(redis_url, prefix, **settings, serve_partitions="0-1"),
        workers_in_process(redis_url, prefix, **settings, serve_partitions="2-3"),
    ):
        for name in (f"calm_{number}" for number in range(60)):
            await publish(redis, name, refused=False, stream=partitions.of(name).deltas)
        await wait_until(all_is_before, 60, message="the window has moved on")
        for name in (f"refused_{number}" for number in range(40)):
            await publish(redis, name, refused=True, stream=partitions.of(name).deltas)
        await wait_until(came_and_went, 60, message="the spikes come and go")
    first = await entries(redis, partitions.all[0].alerts)
    assert sum(fields[b"type"].startswith(b"deltaloom.refusal.spike") for _, fields in first) == 4


async def test_the_command_shows_them(redis: Redis, redis_url: str, prefix: str) -> None:
    """`alerts rates` shows the current rates and spikes."""
    env = environment(redis_url, prefix)
    nothing = deltaloom("alerts", "rates", env=env)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing was counted yet" in nothing.stderr
    async with workers_in_process(redis_url, prefix, **QUICK):
        stream = StreamNames(prefix).deltas
        await publish(redis, "resp_1", "resp_2", refused=True, stream=stream)
        await publish(redis, *(f"other_{number}" for number in range(6)), refused=False, stream=stream)
        await wait_until_settled(redis, prefix)
    shown = deltaloom("alerts", "rates", env=env)
    assert (shown.returncode, shown.stderr) == (0, "")
    since, _, *rows = [line.split() for line in shown.stdout.splitlines()]
    assert since[0] == "since"
    assert rows == [
        ["by", "model"],
        ["gpt-4o", "8", "25.0%", "0.0%", "0", "0.0%", "0.0%", "few"],
        ["by", "tenant"],
        ["of-gpt-4o", "8", "25.0%", "0.0%", "0", "0.0%", "0.0%", "few"],
    ]
    lines = [json.loads(line) for line in deltaloom("alerts", "rates", "--json", env=env).stdout.splitlines()]
    assert [(line["by"], line["refused"], line["spike"]) for line in lines] == [
        ("model", 2, None),
        ("tenant", 2, None),
    ]
    off = deltaloom("alerts", "rates", env={**env, "DELTALOOM_SPIKE_WINDOW": "0"})
    assert (off.returncode, off.stderr) == (1, "refusals are not counted: DELTALOOM_SPIKE_WINDOW=0\n")
