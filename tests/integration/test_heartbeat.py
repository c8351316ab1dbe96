"""Tests of `deltaloom alerts heartbeat`: it succeeds if everything works, and says what is missing."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from deltaloom import HEARTBEAT_PREFIX
from service.apps.relay_app import relaying
from service.settings import Settings
from tests.relays import SECRETS, deliveries, destination, wait_until_settled
from tests.service.cli.command import deltaloom_process, environment
from tests.webhook_receiver import receiving
from tests.workers import alerts, texts, workers_in_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from redis.asyncio import Redis

    from tests.webhook_receiver import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver of alerts."""
    async with receiving() as made:
        yield made


async def beat(redis_url: str, prefix: str, *arguments: str) -> CompletedProcess[str]:
    """Run the command."""
    env = environment(redis_url, prefix, **SECRETS)
    return await asyncio.to_thread(deltaloom_process, "alerts", "heartbeat", *arguments, env=env)


async def test_heartbeat_passes_everything(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver
) -> None:
    """A heartbeat reaches the destinations that want it, marked, and no other; no rate counts it."""
    file, textfile = tmp_path / "alerts.toml", tmp_path / "deltaloom.prom"
    muted = '[[mutes]]\nuntil = 2100-01-01T00:00:00Z\nwhy = "ends"\nmatch = { phase = "finished" }\n'
    there = destination("here", receiver.url, heartbeat=True)
    file.write_text(there + destination("other", f"{receiver.url}?other") + muted)
    settings = Settings(redis_url=redis_url, prefix=prefix, block_ms=50)
    async with workers_in_process(redis_url, prefix), relaying(settings, file, SECRETS) as relay:
        relay.start()
        done = await beat(redis_url, prefix, "--config", str(file), "--textfile", str(textfile))
        await wait_until_settled(redis, prefix, "other")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"here took the heartbeat after [0-9,]+ ms: 200 OK.*\n", done.stdout)
    (request,) = receiver.requests
    assert request.body["response_id"].startswith(HEARTBEAT_PREFIX)
    marks = {name: request.body["delivery"][name] for name in ("severity", "category", "test", "resolves")}
    assert marks == {"severity": "info", "category": "heartbeat", "test": True, "resolves": True}
    (delivery,) = await deliveries(redis, prefix)
    assert (delivery.destination, delivery.outcome, delivery.route) == ("here", "delivered", "heartbeat")
    (text,) = await texts(redis, prefix)
    assert (text.status, text.integrity, text.response_id) == ("completed", "verified", delivery.response_id)
    assert len(await alerts(redis, prefix)) == 2
    assert [key async for key in redis.scan_iter(f"{prefix}:rate*")] == []
    written = textfile.read_text("utf-8")
    assert (
        f'deltaloom_heartbeat_latency_seconds{{destination="here"}} {delivery.latency_ms / 1000}' in written
    )
    assert re.search(r"^deltaloom_heartbeat_last_success_timestamp_seconds [0-9.]+$", written, re.MULTILINE)


async def test_what_is_missing_is_named(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver
) -> None:
    """Whoever is called at night sees on which side of the stream of alerts to look."""
    file, textfile = tmp_path / "alerts.toml", tmp_path / "deltaloom.prom"
    to_file = ("--textfile", str(textfile))
    wait = ("--timeout", "1", *to_file)
    nobody = await beat(redis_url, prefix, "--to", "here", *wait)
    assert nobody.returncode == 1
    assert "no worker raised its alert within 1 s" in nobody.stderr
    settings = Settings(redis_url=redis_url, prefix=prefix, block_ms=50)
    async with workers_in_process(redis_url, prefix):
        # Long enough for the worker to raise the alert.
        no_relay = await beat(redis_url, prefix, "--to", "here", "--timeout", "4", *to_file)
        assert no_relay.returncode == 1
        assert "here: the alert was raised, but no delivery was recorded within 4 s" in no_relay.stderr
        file.write_text(destination("here", receiver.url, heartbeat=True, begin="now"))
        receiver.answer = lambda _id, _count: web.Response(status=403)
        async with relaying(settings, file, SECRETS) as relay:
            relay.start()
            await wait_until_settled(redis, prefix, "here")
            refused = await beat(redis_url, prefix, "--config", str(file), "--timeout", "20")
        assert refused.returncode == 1
        assert "here: refused, 403 Forbidden" in refused.stderr
    file.write_text(destination("here", receiver.url))
    unwanted = await beat(redis_url, prefix, "--config", str(file), *wait)
    assert unwanted.returncode == 1
    assert "set heartbeat = true" in unwanted.stderr
    assert not textfile.exists()
