"""Test that what anybody may have written to Redis costs a console that only, and no page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from console import live_reading, response_parts, stream_places
from console import newest_entries as reading
from console.live_responses import LiveResponses
from console.minute_counts import MinuteCounts
from console.newest_entries import newest_entries
from console.short_fields import LONGEST, LONGEST_TEXT, with_short_fields
from console.stream_places import StreamPlaces
from console.wilson import wilson
from deltaloom import Partitions, StreamNames
from deltaloom.messages import Delivery, ModerationAlert
from handlers.core.identity import StreamKey
from service.keys import Keys
from service.ports.storage import StorageUnavailableError
from service.storage.buckets import baseline_of
from tests.console.made import delta, publish
from tests.console.running import console, settings_of
from tests.waiting import wait_until

if TYPE_CHECKING:
    from redis.asyncio import Redis

AT = "2026-01-01T00:00:00+00:00"


def alert(**given: Any) -> dict[str, Any]:
    """Return an alert as anybody may write it."""
    values = {"id": "a_1", "type": "x", "text": "", "severity": "warning", "raised_at": AT}
    return {**values, "response_id": "resp_1", **given}


def delivery(**given: Any) -> Delivery:
    """Return a delivery of this alert."""
    values = {"id": "d", "destination": "team", "outcome": "delivered", "attempts": 1, "answer": "200"}
    more = {"raised_at": AT, "latency_ms": 1, "entry_id": "1-0", "alert_id": "a_1", "response_id": "resp_1"}
    return Delivery.model_validate_json(json.dumps({**values, **more, **given}))


@pytest.mark.parametrize(
    "kind", ["deltas", "assembled", "alerts", "deliveries", "undelivered", "dead-letters"]
)
async def test_a_key_that_is_no_stream_is_named(redis: Redis, redis_url: str, prefix: str, kind: str) -> None:
    """The page of health says which key it is, and everything else is shown."""
    await redis.set(f"{prefix}:{kind}", "x", ex=60)
    async with console(redis_url=redis_url, prefix=prefix) as client:
        health = await client.json("api/health")
        assert any(f"{prefix}:{kind}" in each["text"] for each in health["findings"])
        assert (await client.json("api/alerts"))["alerts"] == []
        async with client.watching() as page:
            await page.next()
            if kind == "deltas":
                await redis.delete(f"{prefix}:deltas")
            await publish(redis, prefix, "resp_1", delta(1, "No"))
            await page.until(lambda page: "resp_1" in page.rows)


async def test_a_key_becomes_another_while_it_is_watched(redis: Redis, redis_url: str, prefix: str) -> None:
    """A page goes on with the other streams."""
    async with console(redis_url=redis_url, prefix=prefix) as client, client.watching() as page:
        await page.next()
        await redis.set(f"{prefix}:alerts", "x", ex=60)
        await publish(redis, prefix, "resp_1", delta(1, "No"))
        await page.until(lambda page: "resp_1" in page.rows)


async def test_a_stream_made_anew_with_lower_ids_is_read(
    redis: Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of the far future, and the stream's deletion, make no page deaf."""
    monkeypatch.setattr(stream_places, "_CHECK_SECONDS", 0.1)
    fields: Any = {"event": json.dumps(delta(1, "Late")), "response_id": "resp_1"}
    async with console(redis_url=redis_url, prefix=prefix) as client, client.watching() as page:
        await page.next()
        await redis.xadd(f"{prefix}:deltas", fields, id=f"{2**64 - 1}-{2**64 - 1}")
        await page.until(lambda page: "resp_1" in page.rows)
        await redis.delete(f"{prefix}:deltas")
        await publish(redis, prefix, "resp_2", delta(1, "No"))
        number = 1
        while "resp_3" not in page.rows:
            number += 1
            await publish(redis, prefix, "resp_3", delta(number, "No"))
            await page.next()


async def test_large_entries_are_read_few_at_a_time(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of entries has fewer if they are large; the next page has the others."""
    monkeypatch.setattr(reading, "_LARGE", 100_000)
    names = StreamNames(prefix)
    for number in range(1, 61):
        await redis.xadd(names.alerts, {"__data__": "x" * 20_000}, id=f"{number}-0")
    found, before = [], None
    while True:
        page = await newest_entries(redis, [names], lambda each: each.alerts, 500, before)
        found += [entry.id.ms for entry in page.entries]
        assert len(page.entries) == 10
        before = page.next
        if len(found) == 60:
            break
    assert found == list(range(60, 0, -1))


async def test_a_page_of_alerts_is_no_larger_than_a_browser_takes(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """Megabytes in a name, or as a text, are cut."""
    long = "x" * 1_000_000
    data = json.dumps(alert(text=long, model=long, reason=long, provider_explanation=long))
    await redis.xadd(f"{prefix}:alerts", {"__data__": data})
    async with console(redis_url=redis_url, prefix=prefix) as client:
        (shown,) = (await client.json("api/alerts"))["alerts"]
        assert shown["model"] == "x" * LONGEST + "…"
        assert shown["text"] == "x" * LONGEST_TEXT + "…"
        async with client.watching() as page:
            await page.until(lambda page: "resp_1" in page.rows)
            assert page.rows["resp_1"]["model"] == "x" * LONGEST + "…"


def test_a_response_keeps_few_deliveries_with_short_fields() -> None:
    """Thousands of destinations, each with a megabyte, are not kept."""
    responses = LiveResponses(idle_ms=1000)
    responses.take_alert(ModerationAlert.model_validate_json(json.dumps(alert())), "deltaloom", 0)
    for number in range(1000):
        responses.take_delivery(with_short_fields(delivery(destination=f"d{number}", answer="x" * 10_000)))
    response = responses.get("resp_1")
    assert response is not None
    kept = response.alerts["a_1"].deliveries
    assert len(kept) == 32
    assert {len(each.answer) for each in kept.values()} == {LONGEST + 1}


async def test_odd_counts_and_groups_cost_only_themselves(redis: Redis, redis_url: str, prefix: str) -> None:
    """A count that is none, more refusals than responses, names that are no UTF-8, a broken note."""
    settings = settings_of(prefix=prefix)
    now = int((await redis.time())[0]) * 1000
    series, keys = baseline_of(settings), Keys(settings.names.all[0])
    bucket = keys.rates(series.width_ms, now // series.width_ms * series.width_ms)
    counts: Any = {"responses:model:a": "9" * 5000, "responses:model:b": "1", "refused:model:b": "7"}
    await redis.hset(bucket, mapping=counts)
    await redis.expire(bucket, 60)
    group: Any = b"relay:\xff"
    await redis.xgroup_create(f"{prefix}:alerts", group, mkstream=True)
    await redis.xgroup_create(f"{prefix}:alerts", "relay:team")
    await redis.zadd(keys.open, {b"\xff": 1, b"response:odd": 2})
    odd: Any = {b"\xff": "x", "version": "1"}
    state = keys.state(StreamKey("response", "odd"))
    await redis.hset(state, mapping=odd)
    await redis.expire(state, 60)
    async with console(redis_url=redis_url, prefix=prefix) as client:
        (shown,) = (await client.json("api/rates?hours=24"))["groups"]
        assert (shown["name"], shown["total"][:2]) == ("b", [1, 7])
        health = await client.json("api/health")
        assert "team" in {each["name"] for each in health["destinations"]}
        assert await client.status("api/responses/nobody") == 404


async def test_a_page_of_a_response_is_no_larger_than_a_browser_takes(
    redis: Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Megabytes in the names of a text are cut, and so are the texts if all of them have too many."""
    monkeypatch.setattr(response_parts, "MAX_OF_ALL", 25)
    long = "x" * 1_000_000
    for place in range(3):
        values = {"kind": "refusal", "output_index": place, "content_index": 0, "text": f"{place}" * 10}
        counts = {"delta_count": 1, "duplicate_count": 0, "started_at": AT, "finished_at": AT}
        more = {"id": f"t_{place}", "response_id": "resp_1", "status": "incomplete", "integrity": "verified"}
        data = json.dumps({**values, **counts, **more, "model": long, "reason": long})
        await redis.xadd(f"{prefix}:assembled", {"__data__": data})
    await redis.xadd(f"{prefix}:alerts", {"__data__": json.dumps(alert(model=long)), "response_id": "resp_1"})
    async with console(redis_url=redis_url, prefix=prefix) as client:
        page = await client.json("api/responses/resp_1")
        short = "x" * LONGEST + "…"
        assert (page["model"], page["reason"], page["alerts"][0]["model"]) == (short, short, short)
        parts = [(part["text"], part["cut"], part["length"]) for part in page["parts"]]
        assert parts == [("0" * 10, False, 10), ("1" * 10, False, 10), ("2" * 5, True, 10)]


def test_no_output_shows_a_response_with_a_very_long_id() -> None:
    """A cut id would be that of another response, and a link to it leads nowhere."""
    responses = LiveResponses(idle_ms=1000)
    long = with_short_fields(ModerationAlert.model_validate_json(json.dumps(alert(response_id="x" * 10_000))))
    responses.take_alert(long, "deltaloom", 0)
    assert [*responses] == []


def test_an_alert_of_the_far_future_is_forgotten_in_a_minute() -> None:
    """An entry's id may be any time; the counts of the last minute go on."""
    counts = MinuteCounts()
    counts.add("alerts", 2**63, 1000)
    counts.add("alerts", 2000, 2000)
    assert counts.to_json()["alerts"] == 2
    counts.forget(63_000)
    assert counts.to_json()["alerts"] == 0


async def test_one_group_of_partitions_is_away(
    redis: Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page says all the time that it is behind, though the other groups are read."""
    monkeypatch.setattr(live_reading, "_PARTITIONS_AT_ONCE", 1)
    monkeypatch.setattr(live_reading, "_RETRY", 0.01)
    away, other = Partitions(2, prefix).all
    check, seen = StreamPlaces.check_if_due, []

    async def check_others(places: StreamPlaces) -> None:
        if away.deltas.encode() in places.readable:
            seen.append(client.app.live.behind)
            raise StorageUnavailableError("ConnectionError", "away")
        await check(places)

    monkeypatch.setattr(StreamPlaces, "check_if_due", check_others)
    async with console(redis_url=redis_url, prefix=prefix, partitions=2) as client, client.watching() as page:
        await wait_until(lambda: seen)
        fields: Any = {"event": json.dumps(delta(1, "No")), "response_id": "resp_1"}
        await redis.xadd(other.deltas, fields)
        await page.until(lambda page: "resp_1" in page.rows)
        so_far = len(seen)
        await wait_until(lambda: len(seen) > so_far + 1)
    assert seen == [False, *[True] * (len(seen) - 1)]


def test_more_cases_than_all_have_an_interval() -> None:
    """A count that somebody wrote is no reason to fail."""
    assert wilson(7, 1) == pytest.approx(wilson(1, 1))
