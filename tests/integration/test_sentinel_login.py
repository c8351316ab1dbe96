"""Tests of workers with passwords: one for the sentinels, and a user's for the servers."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.sentinel_servers import SERVICE, Passwords, running_sentinels
from tests.service.cli.command import deltaloom, environment
from tests.waiting import wait_until
from tests.workers import beginning_workers, running_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.sentinel_servers import SentinelGroup

PASSWORDS = Passwords("servers-only", "sentinels-only")
PASSWORD = "workers-only"  # noqa: S105 - the servers exist for one test
SECRETS = (PASSWORDS.servers, PASSWORDS.sentinels, PASSWORD)
AWAY = "redis unavailable, retrying"

pytestmark = pytest.mark.timeout(240)


@asynccontextmanager
async def running_group(folder: Path) -> AsyncIterator[SentinelGroup]:
    """Run a group of servers that know the worker's user."""
    user = f"worker on >{PASSWORD} ~deltaloom:* +@all -@admin"
    async with running_sentinels(folder, passwords=PASSWORDS, user=user) as group:
        yield group


def url_of(group: SentinelGroup, password: str = PASSWORD, sentinels: str = PASSWORDS.sentinels) -> str:
    """Return the group's URL as an operator writes it."""
    servers = f"redis+sentinel://worker:{password}@{group.addresses}/{SERVICE}/0"
    return f"{servers}?sentinel_password={sentinels}"


def publish(env: dict[str, str], folder: Path, response_id: str) -> None:
    """Publish a refusal in a single event."""
    part = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": 1}
    file = folder / f"{response_id}.jsonl"
    file.write_text(json.dumps({"type": "response.refusal.done", "refusal": f"No, {response_id}.", **part}))
    done = deltaloom("publish", str(file), "--response-id", response_id, env=env)
    assert done.returncode == 0, done.stderr


def come_out(env: dict[str, str], stream: str, count: int) -> list[str]:
    """Wait for this many messages of a stream, and return their texts."""
    done = deltaloom("tail", stream, "--from-start", "--count", str(count), "--json", env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["text"] for line in done.stdout.splitlines()]


async def test_the_whole_flow(tmp_path: Path) -> None:
    """Passwords go to the right kind of server, also after a failover, and are never logged."""
    async with running_group(tmp_path / "servers") as group:
        url = url_of(group)
        env = environment(url)
        async with running_workers(url, "deltaloom") as (worker,):
            publish(env, tmp_path, "resp_1")
            assert come_out(env, "assembled", 1) == ["No, resp_1."]
            assert come_out(env, "alerts", 2) == ["No, resp_1."] * 2
            await group.wait_until_replicated()
            dead = await group.master()
            await dead.kill()
            await group.wait_until_replaced(dead)
            publish(env, tmp_path, "resp_2")
            assert come_out(env, "assembled", 2) == ["No, resp_1.", "No, resp_2."]
            assert come_out(env, "alerts", 4) == ["No, resp_1."] * 2 + ["No, resp_2."] * 2
            checked = deltaloom("check", env=env)
            assert checked.returncode == 0
            log = worker.log.read_text()
            assert AWAY in log
            for line in worker.lines():
                assert line["level"] != "error", line
        assert not [secret for secret in SECRETS if secret in log + checked.stdout]


@pytest.mark.parametrize(
    ("password", "sentinels", "says"),
    [
        ("s3cret", PASSWORDS.sentinels, "AuthenticationError: invalid username-password pair"),
        (PASSWORD, "s3cret", "AuthenticationError: no sentinel answers: invalid username-password pair"),
    ],
    ids=["the servers'", "the sentinels'"],
)
async def test_a_wrong_password(tmp_path: Path, password: str, sentinels: str, says: str) -> None:
    """A wrong password is reported as such, not as a server that is down, and never logged."""
    async with running_group(tmp_path) as group:
        url = url_of(group, password, sentinels)
        checked = deltaloom("check", env=environment(url))
        assert checked.returncode == 1
        async with beginning_workers(url, "deltaloom") as (worker,):
            await wait_until(lambda: worker.has_logged(AWAY), message="the worker waits")
            assert await worker.stop() == 0
            lines = [line for line in worker.lines() if line["event"] == AWAY]
            log = worker.log.read_text()
        failure = next(line for line in checked.stdout.splitlines() if line.startswith("FAIL"))
        assert f"/{SERVICE}/0 does not accept this user or password: " in failure
        assert "?sentinel_password= for the sentinels" in failure
        assert any(line["error"].startswith(says) for line in lines), lines
        assert not [secret for secret in (*SECRETS, "s3cret") if secret in log + checked.stdout]
