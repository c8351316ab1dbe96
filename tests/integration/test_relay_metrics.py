"""Test a relay's metrics against what it has sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from service.alerts.sending.destination_relay import DestinationRelay
from service.apps.relay_app import relaying
from service.observability.metrics.exposition import exposition
from service.observability.metrics.relay_counts import RelayCounts
from service.settings import Settings
from tests.relays import SECRETS, destination, raise_alert, wait_until_served, wait_until_settled
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from redis.asyncio import Redis

    from service.alerts.sending.message import OutgoingMessage


async def test_backlog_and_deliveries(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count each message once by its outcome, and export the backlog while this relay sends."""
    attempt, may_send = DestinationRelay._attempt, asyncio.Event()  # noqa: SLF001 - the first one must wait

    async def attempt_later(relay: DestinationRelay, message: OutgoingMessage) -> None:
        await may_send.wait()
        await attempt(relay, message)

    monkeypatch.setattr(DestinationRelay, "_attempt", attempt_later)
    counts = RelayCounts()
    settings = Settings(redis_url=redis_url, prefix=prefix, lease_time=2, block_ms=50)
    file = tmp_path / "alerts.toml"
    async with receiving() as receiver:
        file.write_text(destination("here", receiver.url))
        accept, receiver.answer = receiver.answer, lambda _id, _count: web.Response(status=503)
        await raise_alert(redis, prefix, "opened", "waits")
        async with relaying(settings, file, SECRETS, counts) as relays:
            relays.start()
            await wait_until(lambda: counts.samples()["relay_backlog"], message="the backlog is measured")
            samples = counts.samples()
            assert samples["relay_backlog"] == {("here",): 1}
            assert set(samples["relay_oldest_seconds"]) == {("here",)}
            assert samples["relay_paused"] == {("here",): 0}
            may_send.set()
            await wait_until(lambda: ("here", "retry") in counts.samples()["relay_deliveries_total"])
            receiver.answer = accept
            await wait_until_served(redis, prefix, "here")
            await wait_until_settled(redis, prefix, "here")
            receiver.answer = lambda _id, _count: web.Response(status=400)
            await raise_alert(redis, prefix, "opened", "refused")
            await wait_until_settled(redis, prefix, "here")
            await wait_until(lambda: counts.samples()["relay_deliveries_total"].get(("here", "refused")))
            text, _ = exposition(counts.samples())
            assert b'deltaloom_relay_deliveries_total{destination="here",outcome="refused"} 1.0' in text
        samples = counts.samples()
        assert samples["relay_deliveries_total"]["here", "delivered"] == 1
        assert samples["relay_backlog"] == {}
        assert samples["relay_paused"] == {}
