"""Tests of pools with few connections: calls wait for one, and no failure or cancellation loses a place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from deltaloom.address import Address
from service.storage.client.connection import client_of
from service.storage.client.limited_pool import AT_ONCE
from tests.nodes import Node
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

CALLS = 5 * AT_ONCE


async def _connections(redis: Redis, name: str) -> int:
    clients = await redis.client_list()
    return sum(client["name"] == name for client in clients)


async def _wait(client: Redis, prefix: str) -> None:
    """Wait for a value that never comes."""
    await client.execute_command("BLPOP", f"{prefix}:no", 0)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("most", [AT_ONCE, 3])
async def test_calls_wait_for_one_of_few_connections(redis: Redis, redis_url: str, most: int) -> None:
    """Any number of concurrent calls and pipelines share these connections; a URL may allow even fewer."""
    address = Address.parse(f"{redis_url}?client_name=limited&max_connections={most}")
    async with client_of(address) as client:

        async def pipelined() -> None:
            async with client.pipeline(transaction=False) as pipeline:
                pipeline.ping()
                await pipeline.execute()

        calls = [client.ping() if n % 2 else pipelined() for n in range(CALLS)]
        await asyncio.gather(*calls)
        assert await _connections(redis, "limited") == most


async def test_a_cancelled_call_gives_its_place_back(redis: Redis, redis_url: str, prefix: str) -> None:
    """A call may be cancelled while it waits for a connection, or for a reply."""
    address = Address.parse(f"{redis_url}?client_name=limited")
    async with client_of(address) as client:
        calls = [asyncio.create_task(_wait(client, prefix)) for _ in range(CALLS)]

        async def all_in_use() -> bool:
            clients = await redis.client_list()
            blocked = [each for each in clients if each["name"] == "limited" and "b" in each["flags"]]
            return len(blocked) == AT_ONCE

        await wait_until(all_in_use, message="all connections wait for a reply")
        for call in (*calls[AT_ONCE:], *calls):
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await asyncio.gather(*(client.ping() for _ in range(CALLS))) == [True] * CALLS


async def test_a_failed_connect_gives_its_place_back(tmp_path: Path) -> None:
    """While a server is away, each call fails; when it is back, each succeeds."""
    node = Node(tmp_path / "server", {"save": ""})
    async with client_of(Address.parse(node.url), retry=Retry(NoBackoff(), 0)) as client:
        for _ in range(CALLS):
            with pytest.raises(RedisError):
                await client.ping()
        await node.start()
        try:
            assert await asyncio.gather(*(client.ping() for _ in range(CALLS))) == [True] * CALLS
        finally:
            await node.kill()
