"""Tests of `deltaloom init` on a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom import Partitions
from deltaloom.streams import GROUP
from tests.service.cli.command import deltaloom, environment
from tests.streams import add
from tests.workers import wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_creates_what_is_missing_and_nothing_else(redis: Redis, redis_url: str, prefix: str) -> None:
    """Create the group at the beginning of the stream, once. A second run must not move it back."""
    stream, env = f"{prefix}:deltas", environment(redis_url, prefix)
    await add(redis, stream, {"event": "{"})
    done = deltaloom("init", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"created  group {GROUP} on {stream}\n", "")
    async with workers_in_process(redis_url, prefix):
        await wait_until_settled(redis, prefix)
    before = await redis.xinfo_groups(stream)
    assert (before[0]["entries-read"], before[0]["lag"]) == (1, 0)
    done = deltaloom("init", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"exists   group {GROUP} on {stream}\n", "")
    assert await redis.xinfo_groups(stream) == before
    assert await redis.xlen(stream) == 1


async def test_all_partitions(redis: Redis, redis_url: str, prefix: str) -> None:
    """Create the groups of all partitions, also of those that this machine's workers do not serve."""
    partitions = Partitions(4, prefix)
    await redis.xgroup_create(partitions.all[2].deltas, GROUP, id="0", mkstream=True)
    env = environment(redis_url, prefix, DELTALOOM_PARTITIONS="4", DELTALOOM_SERVE_PARTITIONS="0-1")
    done = deltaloom("init", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"created  group {GROUP} on {prefix}:{{0,1,3}}:deltas",
        f"exists   group {GROUP} on {prefix}:{{2}}:deltas",
    ]
    for names in partitions.all:
        (group,) = await redis.xinfo_groups(names.deltas)
        assert (group["name"], group["consumers"], group["lag"]) == (GROUP.encode(), 0, 0)


async def test_key_of_another_type(redis: Redis, redis_url: str, prefix: str) -> None:
    """Name the key, and leave it as it is."""
    await redis.set(f"{prefix}:deltas", "mine")
    done = deltaloom("init", env=environment(redis_url, prefix))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "WRONGTYPE" in line
    assert await redis.get(f"{prefix}:deltas") == b"mine"
