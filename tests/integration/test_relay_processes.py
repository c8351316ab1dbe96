"""Tests of relay processes: killed at any moment, several at a time, in the same process as a worker."""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import AsyncExitStack
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from redis.asyncio import Redis

from deltaloom import StreamNames
from tests.mortal import MortalServer
from tests.relays import (
    deliveries,
    destination,
    hang_up,
    raise_alert,
    relay_environment,
    relay_process,
    undelivered,
    wait_until_served,
    wait_until_settled,
)
from tests.service.cli.command import running
from tests.streams import add
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.webhook_receiver import Answer, Receiver
    from tests.workers import WorkerProcess

TOGETHER = 60
"""Number of responses with alerts that are raised while relays are killed."""


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver of alerts."""
    async with receiving() as made:
        yield made


def fails_at_random(seed: int) -> Answer:
    """Return random answers for the first four attempts, then 200, since each failure doubles the pause."""
    chance = random.Random(seed)

    def answer(_id: str, count: int) -> web.Response | None:
        what = chance.random() if count < 5 else 0.5
        if what < 0.1:
            return None
        return web.Response(status=200 if what < 0.7 else chance.choice([408, 429, 500, 502, 503]))

    return answer


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_relays_killed_in_the_middle(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver
) -> None:
    """Killed relays lose no alert and keep their order; only deliveries in flight may be repeated."""
    seed = random.randrange(1 << 30)
    receiver.answer = fails_at_random(seed)
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", receiver.url))
    environment = relay_environment(redis_url, prefix)
    raised: list[str] = []
    kills = 0
    async with AsyncExitStack() as running:

        async def start() -> None:
            relays.append(await running.enter_async_context(relay_process(file, environment)))

        relays: list[WorkerProcess] = []
        await start()
        await start()
        for number in range(TOGETHER):
            raised.append(await raise_alert(redis, prefix, "opened", f"resp_{number}"))
            raised.append(await raise_alert(redis, prefix, "finished", f"resp_{number}"))
            if number % 20 == 10:
                await wait_until(partial(_more_was_taken, receiver, len(receiver.taken)), 30)
                for relay in relays:
                    await relay.kill()
                    kills += 1
                relays.clear()
                await start()
                await start()
        await wait_until_settled(redis, prefix, "here", 90)
    assert kills == 6
    assert await undelivered(redis, prefix) == []
    assert set(receiver.taken) == set(raised), f"seed {seed}"
    recorded = [(each.alert_id, each.outcome) for each in await deliveries(redis, prefix)]
    assert sorted(recorded) == sorted((name, "delivered") for name in raised), f"seed {seed}"
    twice = {name for name in receiver.taken if receiver.taken.count(name) > 1}
    assert len(twice) <= 8 * 3, f"seed {seed}: only deliveries in flight at a kill"
    for number in range(TOGETHER):
        of_part = [request.id for request in receiver.requests if request.id.endswith(f"_resp_{number}")]
        kinds = [kind for kind, _ in groupby(of_part)]
        assert kinds == [f"opened_resp_{number}", f"finished_resp_{number}"], f"seed {seed}"


def _more_was_taken(receiver: Receiver, before: int) -> bool:
    return len(receiver.taken) > before


async def test_standby_sends_nothing_and_takes_over(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver
) -> None:
    """A standby relay sends nothing, and takes over when the sending one dies."""
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", receiver.url))
    environment = relay_environment(redis_url, prefix, lease_time=5)
    async with relay_process(file, environment) as first:
        await wait_until(lambda: first.has_logged("relay active"))
        async with relay_process(file, environment) as second:
            await wait_until(lambda: second.has_logged("relay standby"))
            names = [await raise_alert(redis, prefix, "opened", f"resp_{n}") for n in range(10)]
            await wait_until_settled(redis, prefix, "here")
            assert sorted(request.id for request in receiver.requests) == sorted(names)
            await first.kill()
            late = await raise_alert(redis, prefix, "opened", "late")
            await wait_until_settled(redis, prefix, "here")
            assert second.has_logged("relay active")
    assert receiver.taken == [*receiver.taken[:10], late]


async def test_relay_that_was_frozen_sends_nothing(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver
) -> None:
    """A relay that was suspended beyond its lease stops sending, since another relay has taken over."""
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", receiver.url))
    environment = relay_environment(redis_url, prefix)
    # The relay is suspended while it waits for its retry, not in the middle of a delivery.
    asks = {"Retry-After": "60"}
    receiver.answer = lambda _id, _count: (
        web.Response() if receiver.requests else web.Response(status=503, headers=asks)
    )
    name = await raise_alert(redis, prefix, "opened", "resp_1")
    async with relay_process(file, environment) as first:
        await wait_until(lambda: receiver.came[name])
        first.freeze()
        async with relay_process(file, environment) as second:
            await wait_until(lambda: second.has_logged("relay active"))
            await wait_until_settled(redis, prefix, "here")
            assert receiver.taken == [name]
            first.thaw()
            await wait_until(lambda: first.has_logged("lease lost, another relay may send"))
            late = await raise_alert(redis, prefix, "finished", "resp_1")
            await wait_until_settled(redis, prefix, "here")
    assert receiver.taken == [name, late]


async def test_hangup_reloads(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver
) -> None:
    """SIGHUP reloads a valid alerts file; an invalid one is reported, and the former stays."""
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", receiver.url))
    async with relay_process(file, relay_environment(redis_url, prefix)) as relay:
        file.write_text("no toml")
        hang_up(relay)
        await wait_until(lambda: relay.has_logged("alerts file invalid, previous one kept"))
        file.write_text(destination("there", receiver.url))
        hang_up(relay)
        await wait_until(lambda: relay.has_logged("alerts file reloaded"))
        await wait_until_served(redis, prefix, "there")
        name = await raise_alert(redis, prefix, "opened", "resp_1")
        await wait_until(lambda: receiver.taken == [name])


async def test_run_starts_a_relay_if_there_is_a_file(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver
) -> None:
    """`deltaloom run` starts a relay if an `alerts.toml` exists."""
    (tmp_path / "alerts.toml").write_text(destination("here", receiver.url))
    environment = relay_environment(redis_url, prefix)
    with running("run", env=environment, cwd=tmp_path) as run:
        await wait_until(lambda: "relay active" in run.stderr, 30)
        name = await raise_alert(redis, prefix, "opened", "resp_1")
        await wait_until(lambda: receiver.taken == [name])


async def test_worker_with_relay(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver
) -> None:
    """`worker --with-relay` delivers alerts from one process, and reloads its file on SIGHUP."""
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", receiver.url))
    environment = relay_environment(redis_url, prefix)
    async with relay_process(file, environment, "worker", "--with-relay") as worker:
        await wait_until(lambda: worker.has_logged("worker started"))
        stream = StreamNames(prefix).deltas
        place = '"item_id": "msg_1", "output_index": 0, "content_index": 0'
        for event in (
            f'{{"type": "response.refusal.delta", {place}, "delta": "No", "sequence_number": 1}}',
            f'{{"type": "response.refusal.done", {place}, "refusal": "No", "sequence_number": 2}}',
        ):
            await add(redis, stream, {"event": event, "response_id": "resp_1"})
        await wait_until(lambda: len(receiver.taken) == 2)
        hang_up(worker)
        await wait_until(lambda: worker.has_logged("alerts file reloaded"))
    types = [request.body["type"] for request in receiver.requests]
    assert types == ["deltaloom.refusal.opened", "deltaloom.refusal.finished"]


async def test_wrong_file_ends_it_before_it_starts(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """An invalid alerts file ends a relay at start, with exit code 2 and the line of the mistake."""
    file = tmp_path / "alerts.toml"
    file.write_text("[destinations.here]\ntype = 'webook'\n")
    environment = relay_environment(redis_url, prefix)
    for command in (("relay",), ("worker", "--with-relay"), ("worker", "--with-relay", "--processes", "2")):
        arguments = ("-m", "service", *command, "--config", str(file))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, stderr=asyncio.subprocess.PIPE
        )
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 2
        assert f"{file}:2: destinations.here.type" in stderr.decode()


async def test_server_that_goes_and_comes_back(tmp_path: Path, receiver: Receiver) -> None:
    """A relay survives a restart of its server, and delivers what was pending."""
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", receiver.url))
    server = await MortalServer(tmp_path).start()
    try:
        async with (
            Redis.from_url(server.url) as redis,
            relay_process(file, relay_environment(server.url, "deltaloom")) as relay,
        ):
            first = await raise_alert(redis, "deltaloom", "opened", "resp_1")
            await wait_until(lambda: receiver.taken == [first])
            await server.kill()
            await wait_until(lambda: relay.has_logged("lease lost, another relay may send"))
            await redis.connection_pool.disconnect()
            await server.start()
            second = await raise_alert(redis, "deltaloom", "opened", "resp_2")
            await wait_until(lambda: receiver.taken == [first, second], 30)
    finally:
        await server.kill()


@pytest.mark.parametrize("how", ["dead", "hung"])
async def test_stops_in_time_while_the_server_is_away(tmp_path: Path, receiver: Receiver, how: str) -> None:
    """A relay stops within its shutdown timeout although the server is down or hangs."""
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", receiver.url))
    server = await MortalServer(tmp_path).start()
    try:
        environment = relay_environment(server.url, "deltaloom", shutdown_timeout=2)
        async with Redis.from_url(server.url) as redis, relay_process(file, environment) as relay:
            name = await raise_alert(redis, "deltaloom", "opened", "resp_1")
            await wait_until(lambda: receiver.taken == [name])
            if how == "dead":
                await server.kill()
            else:
                server.hang()
            receiver.answer = lambda _id, _count: web.Response(status=503)
            assert await relay.stop() == 0, relay.lines()[-10:]
    finally:
        await server.kill()


async def test_invalid_secret_is_reported_with_its_line(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """A wrong secret ends a relay at start, with the line and name of its destination."""
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", "https://hooks.example/"))
    wrong = {**relay_environment(redis_url, prefix), "RECEIVER_SECRET": "hunter2"}
    for command in (("relay",), ("worker", "--with-relay")):
        arguments = ("-m", "service", *command, "--config", str(file))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=wrong, stderr=asyncio.subprocess.PIPE
        )
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 2
        error = f"{file}:1: destinations.here: RECEIVER_SECRET does not hold a signing secret"
        assert error in stderr.decode()
        assert b"hunter2" not in stderr
