"""Tests of the test server itself: the other integration tests depend on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import server as servers
from tests.waiting import wait_until

if TYPE_CHECKING:
    from redis.asyncio import Redis

OLDEST = (7, 0)
"""The oldest version with `#!lua` scripts and the list of deleted entries in XAUTOCLAIM's reply."""


async def test_server_is_new_enough(redis: Redis) -> None:
    """Otherwise all tests would run against an unsupported server."""
    info = await redis.info("server")
    assert tuple(int(n) for n in info["redis_version"].split(".")[:2]) >= OLDEST


async def test_server_knows_flagged_scripts(redis: Redis, prefix: str) -> None:
    """Otherwise the worker's scripts could not be loaded."""
    script = "#!lua\nreturn redis.call('INCR', KEYS[1])"
    assert await redis.eval(script, 1, f"{prefix}:counter") == 1
    await redis.expire(f"{prefix}:counter", 60)


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_nothing_is_left_by_another_test(redis: Redis, prefix: str, turn: str) -> None:
    """Otherwise tests would see keys of other tests, and depend on their order."""
    assert [key async for key in redis.scan_iter(match=f"{prefix}*")] == []
    await redis.set(f"{prefix}:left-behind", turn, ex=60)


def test_a_program_can_be_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment can name the program of the test server, so that CI can try old and new ones."""
    path = servers.program()
    monkeypatch.setenv(servers.FORCE, path)
    server = servers.start()
    assert path in server.describe()
    server.stop()
    monkeypatch.setenv(servers.FORCE, "/no/such/server")
    with pytest.raises(pytest.UsageError, match="/no/such/server: no such program"):
        servers.start()


async def test_waiting_says_what_did_not_happen() -> None:
    """A wait that times out names the condition that it waited for."""
    with pytest.raises(AssertionError, match="the moon is full"):
        await wait_until(lambda: False, timeout=0.05, message="the moon is full")
