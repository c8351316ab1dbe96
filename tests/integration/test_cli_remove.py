"""Tests of `deltaloom remove`: it removes all keys of a deployment, and no other key."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from tests.bench import delta, done
from tests.service.cli.command import deltaloom_process, environment
from tests.streams import add
from tests.workers import wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from redis.asyncio import Redis


async def remove(redis_url: str, prefix: str, *options: str, stdin: bytes = b"") -> CompletedProcess[str]:
    """Run the command."""
    arguments = ("remove", "--prefix", prefix, *options)
    return await asyncio.to_thread(deltaloom_process, *arguments, env=environment(redis_url), stdin=stdin)


async def test_all_keys_of_a_deployment_go_and_no_other(redis: Redis, redis_url: str, prefix: str) -> None:
    """Otherwise an operator would remove a neighbour's data, or leave people's words behind."""
    others = [
        f"{prefix}:b:deltas",
        f"{prefix}2:deltas",
        f"{prefix}:relay:deltas",
        f"{prefix}:relay:a:digests",
    ]
    for other in others:
        await redis.xadd(other, {"a": "b"})
        await redis.expire(other, 600)
    for partitions in (0, 2):
        async with workers_in_process(redis_url, prefix, partitions=partitions):
            stream = f"{prefix}:{{1}}:deltas" if partitions else f"{prefix}:deltas"
            events = json.dumps([delta(1, "No", "refusal"), done("No", "refusal")])
            await add(redis, stream, {"event": events, "response_id": "r:deltas"})
            await add(redis, stream, {"event": json.dumps(delta(1, "open")), "response_id": "open"})
            if not partitions:
                await wait_until_settled(redis, prefix)
            refused = await remove(redis_url, prefix, "--yes")
            assert refused.returncode == 1
            assert "still at work" in refused.stderr
    before = {key.decode() async for key in redis.scan_iter(f"{prefix}*")}
    dry = await remove(redis_url, prefix, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    after = {key.decode() async for key in redis.scan_iter(f"{prefix}*")}  # some may have expired
    assert any(f"{len(keys) - len(others)} keys of {prefix}" in dry.stdout for keys in (before, after))
    mistyped = await remove(redis_url, prefix, "--force", stdin=b"other\n")
    assert (mistyped.returncode, "nothing was removed" in mistyped.stderr) == (1, True)
    assert await redis.exists(f"{prefix}:deltas", f"{prefix}:{{1}}:assembled") == 2
    removed = await remove(redis_url, prefix, "--force", stdin=f"{prefix}\n".encode())
    assert removed.returncode == 0, removed.stderr
    assert {key.decode() async for key in redis.scan_iter(f"{prefix}*")} == set(others)
    await redis.delete(*others)
