"""Tests of `deltaloom worker --with-relay --processes 2`: one supervisor, two relays, a file that changes."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_cli_worker_processes import logged_as, until_started
from tests.relays import destination, raise_alert, relay_environment, wait_until_served, wait_until_settled
from tests.service.cli.command import TIMEOUT, running
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.service.cli.command import Running
    from tests.webhook_receiver import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver of alerts."""
    async with receiving() as made:
        yield made


async def both(command: Running, event: str) -> None:
    """Wait until both processes have logged this event."""
    await wait_until(
        lambda: {line["process"] for line in logged_as(command, event)} == {1, 2},
        TIMEOUT,
        message=f"both log {event!r}",
    )


async def test_hangup_reaches_every_relay(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver
) -> None:
    """SIGHUP reloads the file in the standby relay too. Otherwise it would take over with the old file."""
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", receiver.url))
    arguments = ("worker", "--with-relay", "--processes", "2", "--config", str(file))
    with running(*arguments, env=relay_environment(redis_url, prefix, lease_time=5)) as command:
        await until_started(command, 2)
        await both(command, "relay started")
        file.write_text("no toml")
        command.process.send_signal(signal.SIGHUP)
        await both(command, "alerts file invalid, previous one kept")
        first = await raise_alert(redis, prefix, "opened", "resp_1")
        await wait_until_settled(redis, prefix, "here")
        file.write_text(destination("there", receiver.url, begin="now"))
        command.process.send_signal(signal.SIGHUP)
        await both(command, "alerts file reloaded")
        await wait_until_served(redis, prefix, "there")
        await wait_until(lambda: _senders(command, "there"), TIMEOUT, message="one of them sends")
        second = await raise_alert(redis, prefix, "opened", "resp_2")
        await wait_until_settled(redis, prefix, "there")
        # The standby relay has the new file too: it sends when the sending one is killed.
        killed = 0

        def the_other_one_sends() -> bool:
            """Kill the sender, also when it is the first one again after its restart."""
            nonlocal killed
            senders = _senders(command, "there")
            if len(set(senders)) == 1 and len(senders) > killed:
                killed = len(senders)
                started = logged_as(command, "process started")
                os.kill(
                    [line["pid"] for line in started if line["process"] == senders[-1]][-1], signal.SIGKILL
                )
            return set(senders) == {1, 2}

        await wait_until(the_other_one_sends, TIMEOUT, message="the other one sends")
        third = await raise_alert(redis, prefix, "opened", "resp_3")
        await wait_until_settled(redis, prefix, "there")
        assert command.end(signal.SIGTERM) == 0
    assert receiver.taken == [first, second, third]


def _senders(command: Running, name: str) -> list[int]:
    """Return the numbers of the processes that sent to a destination, in the order in which they began."""
    return [line["process"] for line in logged_as(command, "relay active") if line["destination"] == name]
