"""Tests of the answers about one response, alerts, rates and health, on a real server with a real worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from console.wilson import wilson
from deltaloom import StreamNames
from service.storage.redis_outbox import DestinationGroup
from tests.console.made import delta, done, publish
from tests.console.running import console
from tests.relays import raise_alert
from tests.waiting import wait_until
from tests.workers import workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

HOSTILE = "<script>alert(1)</script>/../%2e%2e/\u202e?x=1&y#é"
"""Id with all that a path, a page or a terminal could take for something else."""


async def settled(redis: Redis, prefix: str, texts: int) -> None:
    """Wait until that many texts are written."""

    async def are_written() -> bool:
        return await redis.xlen(f"{prefix}:assembled") >= texts

    await wait_until(are_written)


async def test_each_page_tells_of_a_refusal(redis: Redis, redis_url: str, prefix: str) -> None:
    """A person finds the refusal, its alert, its share and its worker, also under a hostile id."""
    async with (
        workers_in_process(redis_url, prefix),
        console(redis_url=redis_url, prefix=prefix) as client,
    ):
        context = {"model": "sonata", "tenant": "acme", "reference": "https://example.com/7"}
        for name in (HOSTILE, "resp_2"):
            await publish(
                redis, prefix, name, delta(1, "I "), delta(2, "can't"), done(3, "I can't"), **context
            )
        await redis.xadd(f"{prefix}:deltas", {"event": "{", "response_id": "resp_2"})
        await settled(redis, prefix, 2)
        response = await client.json(f"api/responses/{quote(HOSTILE, safe='')}")
        assert (response["id"], response["model"], response["refused"]) == (HOSTILE, "sonata", True)
        assert response["reference_url"] == context["reference"]
        (part,) = response["parts"]
        assert (part["text"], part["integrity"]) == ("I can't", "verified")
        assert "exactly the text" in part["explained"]
        assert {alert["type"] for alert in response["alerts"]} == {
            "deltaloom.refusal.opened",
            "deltaloom.refusal.finished",
        }
        alerts = await client.json("api/alerts?model=sonata&type=deltaloom.refusal.opened&limit=1")
        assert len(alerts["alerts"]) == 1
        following = await client.json(
            f"api/alerts?model=sonata&type=deltaloom.refusal.opened&before={alerts['next']}"
        )
        assert [each["response_id"] for each in alerts["alerts"] + following["alerts"]] == ["resp_2", HOSTILE]
        assert (await client.json("api/alerts?outcome=pending&tenant=another"))["alerts"] == []
        health = await client.json("api/health")
        assert health["dead_letters"]["count"] == 1
        assert health["dead_letters"]["newest"][0]["response_id"] == "resp_2"
        assert [each["partitions"] for each in health["workers"]] == [[]]
        assert health["partitions"][0]["waiting"] == 0
        letters = (await client.json("api/responses/resp_2"))["dead_letters"]
        assert [each["reason"] for each in letters] == ["malformed_json"]


async def test_rates_have_intervals(redis: Redis, redis_url: str, prefix: str) -> None:
    """A person sees how sure a share is; ended responses count by model and by tenant."""
    async with (
        workers_in_process(redis_url, prefix, sweep_interval=0.1),
        console(redis_url=redis_url, prefix=prefix) as client,
    ):
        completed = {"type": "response.completed", "response": {"output": []}}
        for number in range(4):
            events = [delta(1, "No"), done(2, "No")] if number == 0 else []
            await publish(redis, prefix, f"resp_{number}", *events, completed, model="sonata", tenant="acme")

        async def counted() -> Any:
            groups = (await client.json("api/rates?hours=24"))["groups"]
            return groups and groups[0]["total"][0] == 4 and groups

        groups = await wait_until(counted)
        assert {group["by"] for group in groups} == {"model", "tenant"}
        assert groups[0]["total"][:3] == [4, 1, 0]
        low, high = wilson(1, 4)
        assert groups[0]["total"][3:5] == pytest.approx([low, high], abs=1e-5)
        assert sum(row[1] for row in groups[0]["rows"]) == 4
        assert len((await client.json("api/rates?hours=1&by=model"))["groups"]) == 1


def test_intervals_are_those_of_the_literature() -> None:
    """Published values: Newcombe (1998), 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson(0, 0) == (0, 1)


async def test_the_oldest_alert_of_a_destination_has_an_age(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A person reads for how long Slack has got nothing, not a time since 1970."""
    await DestinationGroup(redis, StreamNames(prefix).alerts, "slack").ensure()
    async with console(redis_url=redis_url, prefix=prefix) as client:
        (slack,) = (await client.json("api/health"))["destinations"]
        assert (slack["pending"], slack["oldest_ms"]) == (0, None)
        await raise_alert(redis, prefix, "opened", "resp_1")
        (slack,) = (await client.json("api/health"))["destinations"]
        assert slack["pending"] == 1
        assert 0 <= slack["oldest_ms"] < 60_000


async def test_what_is_not_known_is_said(redis_url: str, prefix: str) -> None:
    """An unknown response is a sentence, not an empty page."""
    async with console(redis_url=redis_url, prefix=prefix) as client:
        async with client.session.get(client.url("api/responses/nobody")) as answer:
            assert answer.status == 404
            assert "nothing is known" in (await answer.json())["error"]
        health = await client.json("api/health")
        assert health["workers"] == []
        assert any("no worker has read" in each["text"] for each in health["findings"])
