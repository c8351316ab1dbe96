"""Tests of the counts: events without effect by type, and responses by bucket, both up to a bound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import create_model

from deltaloom import limits
from deltaloom.events import Event
from handlers.core.routing import Handler, Route
from service.keys import LEFT_OUT, OTHER, Keys
from service.rates.proportions import Count
from service.rates.spikes import Subject
from service.storage import settle_plan
from service.storage.buckets import baseline_of, window_of
from service.storage.redis_rates import RedisRates
from tests.bench import COMPLETED, KEEPALIVE
from tests.workers import counts

if TYPE_CHECKING:
    import pytest

    from tests.bench import Bench

TYPES = 1000
"""Maximum number of event types that are counted separately."""

LEFT_OUT_FIELDS = 200
"""Maximum number of left-out fields that are counted separately."""


async def work(bench: Bench, *types: str) -> dict[str, int]:
    """Process events of these types in one batch, and return all counts."""
    await bench.publish(json.dumps([{"type": name} for name in types]))
    await bench.consumer().work()
    return await counts(bench.redis, bench.prefix)


async def test_types_beyond_the_bound_are_counted_together(bench: Bench) -> None:
    """Otherwise made-up types would fill Redis, or remove the counts of other types."""
    names = [f"made.up.{number}" for number in range(TYPES)]
    assert await work(bench, *names, names[0]) == {f"type:{name}": 1 for name in names} | {
        f"type:{names[0]}": 2
    }
    counted = await work(bench, "one.too.many", "one.too.many", "one.too.many", "another")
    assert (len(counted), counted["type:(other)"]) == (TYPES + 1, 2)
    assert (counted["type:one.too.many"], counted["type:another"]) == (3, 1)
    assert sum(counted.values()) == TYPES + 5
    assert await bench.redis.zcard(bench.names.name("counted-types")) == TYPES


async def test_types_that_come_often_stay_though_made_up_ones_go_on(bench: Bench) -> None:
    """Otherwise a flood of made-up types would hide each real type after it."""
    await work(bench, *(f"early.{number}" for number in range(TYPES)))
    for flood in range(3):
        junk = (f"junk.{flood}.{number}" for number in range(TYPES // 2))
        await work(bench, "real", *junk, "real")
    counted = await counts(bench.redis, bench.prefix)
    assert (counted["type:real"], len(counted)) == (6, TYPES + 1)
    assert sum(counted.values()) == TYPES + 3 * (TYPES // 2 + 2)


async def test_a_count_that_is_no_number_begins_again(bench: Bench) -> None:
    """Otherwise one odd value would stop each batch that counts the type."""
    await bench.redis.hset(bench.names.name("counts"), "type:keepalive", "many")
    assert await work(bench, "keepalive", "keepalive") == {"type:keepalive": 2}


async def test_values_that_were_too_long_are_counted_by_name_beyond_the_bound(bench: Bench) -> None:
    """Otherwise a truncated value would be counted as an unknown event type, if there are many types."""
    await work(bench, *(f"made.up.{number}" for number in range(TYPES)))
    await bench.publish(COMPLETED, tenant="x" * (limits.NAME + 1))
    await bench.consumer().work()
    counted = await counts(bench.redis, bench.prefix)
    assert (counted.get("truncated:tenant"), counted.get("type:(other)")) == (1, None)


class _Wide(Event):
    """An event with more fields than are counted separately."""

    type: Literal["wide"]


_FIELDS: Any = {f"f{number}": (int | None, None) for number in range(LEFT_OUT_FIELDS + 20)}
WIDE: type[_Wide] = create_model("WIDE", __base__=_Wide, **_FIELDS)


async def test_fields_beyond_the_bound_are_counted_together(bench: Bench) -> None:
    """Otherwise models with many fields would fill Redis."""
    wide = Handler("wide", (Route(WIDE, lambda _event, _origin: ()),))
    for odd in (range(LEFT_OUT_FIELDS - 1), range(LEFT_OUT_FIELDS - 5, LEFT_OUT_FIELDS + 20)):
        await bench.publish({"type": "wide", **{f"f{number}": "x" for number in odd}})
        await bench.consumer(handlers=[wide]).work()
    counted = await counts(bench.redis, bench.prefix)
    fields = {name: count for name, count in counted.items() if name.startswith(LEFT_OUT)}
    assert fields.pop(f"{LEFT_OUT}(other)") == 20
    assert len(fields) == LEFT_OUT_FIELDS
    twice = {name for name, count in fields.items() if count == 2}
    assert twice == {
        f"{LEFT_OUT}wide:f{number}" for number in range(LEFT_OUT_FIELDS - 5, LEFT_OUT_FIELDS - 1)
    }


async def test_a_name_that_is_known_goes_on_counting_beyond_the_bound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the rates of all models would stop as soon as there are many tenants."""
    monkeypatch.setattr(settle_plan, "MAX_NAMES", 3)
    models = ("first", "second", "first", "second", "third", "fourth", "first", "second", "fifth")
    for number, model in enumerate(models):
        await bench.publish(COMPLETED, response_id=f"resp_{number}", model=model)
        await bench.consumer().work()
    rates = RedisRates(bench.redis, bench.settings)
    window = (await rates.counted(await rates.now_ms())).window
    assert {subject.name: count.responses for subject, count in window.items()} == {
        "first": 3,
        "second": 3,
        "fifth": 1,
        OTHER: 2,
    }


async def test_responses_that_end_together_are_all_counted(bench: Bench) -> None:
    """Otherwise only one of several responses in a batch would be counted."""
    for number in range(5):
        await bench.publish(KEEPALIVE, COMPLETED, response_id=f"resp_{number}", model="m", tenant="t")
    await bench.consumer().work()
    rates = RedisRates(bench.redis, bench.settings)
    window = (await rates.counted(await rates.now_ms())).window
    assert window == {Subject("model", "m"): Count(5, 0), Subject("tenant", "t"): Count(5, 0)}


async def test_every_bucket_of_a_window_is_added_up(bench: Bench) -> None:
    """Otherwise responses would be left out of a rate, or counted twice."""
    rates = RedisRates(bench.redis, bench.settings)
    now_ms, keys = await rates.now_ms(), Keys(bench.names)
    sums = []
    for series in (window_of(bench.settings), baseline_of(bench.settings)):
        buckets = series.keys(keys, now_ms)
        for number, bucket in enumerate(buckets):
            await bench.redis.hset(bucket, mapping={"responses:model:m": 2**number, "refused:model:m": 1})
            await bench.redis.expire(bucket, 60)
        sums.append(Count(2 ** len(buckets) - 1, len(buckets)))
    found = await rates.counted(now_ms)
    window, both = sums
    assert found.window == {Subject("model", "m"): window}
    assert found.baseline == {Subject("model", "m"): both.without(window)}
