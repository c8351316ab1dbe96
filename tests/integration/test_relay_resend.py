"""Tests of `deltaloom alerts resend`: by id, to another destination, and the alerts that stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from deltaloom import StreamNames
from tests.relays import (
    SECRETS,
    destination,
    raise_alert,
    relay_environment,
    relay_process,
    undelivered,
    wait_until_settled,
)
from tests.service.cli.command import deltaloom, environment
from tests.streams import entries
from tests.webhook_receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from redis.asyncio import Redis

    from tests.webhook_receiver import Receiver

MUTED = (
    '[[mutes]]\nmatch = { tenant = "acme" }\nto = ["spare"]\nuntil = 2126-01-01T00:00:00Z\nwhy = "known"\n'
)
ROUTES = """
[[routes]]
to = "broken"
text = "full"

[[routes]]
to = "spare"
text = { excerpt = 4 }
"""


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver of alerts."""
    async with receiving() as made:
        yield made


@pytest.fixture
async def missed(redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver) -> list[str]:
    """Return the ids of alerts that the destination `broken` has refused; `spare` got none."""
    file = tmp_path / "alerts.toml"
    names = [
        await raise_alert(redis, prefix, "opened", "resp_1", text="I must decline this."),
        await raise_alert(redis, prefix, "finished", "resp_1", text="I must decline this."),
        await raise_alert(redis, prefix, "opened", "resp_2", tenant="acme"),
    ]
    receiver.answer = lambda _id, _count: web.Response(status=400)
    file.write_text(destination("broken", receiver.url))
    async with relay_process(file, relay_environment(redis_url, prefix)):
        await wait_until_settled(redis, prefix, "broken")
    receiver.answer = lambda _id, _count: web.Response()
    file.write_text(destination("broken", receiver.url) + destination("spare", receiver.url) + ROUTES + MUTED)
    return names


async def resend(redis_url: str, prefix: str, folder: Path, *arguments: str) -> CompletedProcess[str]:
    """Run the command in a thread, since the receiver runs in this one."""
    env = environment(redis_url, prefix, DELTALOOM_ALERTS_FILE=str(folder / "alerts.toml"), **SECRETS)
    return await asyncio.to_thread(deltaloom, "alerts", "resend", *arguments, env=env)


async def test_to_another_destination(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver, missed: list[str]
) -> None:
    """`--to` sends alerts to another destination, with its routes, mutes and privacy."""
    done = await resend(redis_url, prefix, tmp_path, "--all", "--of", "broken", "--to", "spare")
    assert done.returncode == 1
    assert done.stdout == "2 delivered\n"
    assert "spare does not get it: known (until " in done.stderr
    assert "1 not delivered: they are kept" in done.stderr
    assert receiver.taken == missed[:2]
    bodies = [request.body for request in receiver.requests if request.status == 200]
    assert [body["text"] for body in bodies] == ["I mu…", "I mu…"]
    assert {body["delivery"]["privacy"] for body in bodies} == {"excerpt"}
    (left,) = await undelivered(redis, prefix)
    assert missed[2] in str(left.alert)
    again = await resend(redis_url, prefix, tmp_path, "--all")
    assert (again.returncode, again.stdout) == (0, "1 delivered\n"), again.stderr
    assert receiver.taken == missed
    assert await undelivered(redis, prefix) == []


async def test_by_id(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver, missed: list[str]
) -> None:
    """Single alerts can be sent again by their entry ids."""
    found = await entries(redis, StreamNames(prefix).undelivered)
    ids = {fields[b"id"].decode(): entry_id for entry_id, fields in found}
    done = await resend(redis_url, prefix, tmp_path, ids[missed[1]], "1-1")
    assert (done.returncode, done.stdout) == (1, "1 delivered\n")
    assert "1-1: is not there (any more)" in done.stderr
    assert receiver.taken == [missed[1]]
    assert len(await undelivered(redis, prefix)) == 2


async def test_entry_of_another_program_stops_nothing(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver, missed: list[str]
) -> None:
    """A foreign entry among the undelivered alerts is reported, and blocks no other."""
    await redis.xadd(StreamNames(prefix).undelivered, {b"\xff": b"\xff"}, id="99999999999999999-0")
    done = await resend(redis_url, prefix, tmp_path, "--all")
    assert "99999999999999999-0: holds no alert" in done.stderr
    assert f"{len(missed)} delivered\n" in done.stdout
    assert sorted(receiver.taken) == sorted(missed)


async def test_to_nobody(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, receiver: Receiver, missed: list[str]
) -> None:
    """Alerts stay if the destination in `--to` does not exist."""
    done = await resend(redis_url, prefix, tmp_path, "--all", "--to", "sapre")
    assert (done.returncode, done.stdout) == (1, "0 delivered\n")
    assert done.stderr.count("there is no destination sapre in the file") == len(missed)
    assert receiver.taken == []
    assert len(await undelivered(redis, prefix)) == len(missed)
