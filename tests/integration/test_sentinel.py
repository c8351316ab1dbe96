"""Tests of workers on a sentinel group: the whole flow, and the master's death."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from deltaloom import Partitions
from deltaloom.address import Address
from embedded.free_ports import HOST
from service.storage.client.connection import client_of
from tests.generated import SETTINGS, Generated
from tests.mid_stream import CarefulProducers, kill_in_mid_stream
from tests.sentinel_servers import SERVICE, running_sentinels
from tests.waiting import wait_until
from tests.workers import running_workers

if TYPE_CHECKING:
    from pathlib import Path

    from deltaloom import StreamNames
    from tests.nodes import Node

pytestmark = pytest.mark.timeout(240)


WAITING = {"wait_replicas": 1, "batch_size": 3}
"""Small batches: while two of them wait for the replica, entries stay unread."""


ALL_AT_ONCE: dict[str, Any] = {
    "partitions": 4,
    "sweep_interval": 0.5,
    "claim_time": 1.5,
    "trim_interval": 0.5,
}
"""Periodic tasks with equal intervals, which all look for the master at once when connections are cut."""


async def test_concurrent_calls_forget_no_sentinel(tmp_path: Path) -> None:
    """A sentinel that knows no master for a while is asked again later, also after concurrent calls."""
    async with running_sentinels(tmp_path, replicas=0) as group:
        first, *others = group.sentinels
        master = await group.master()
        await first.ask("SENTINEL", "REMOVE", SERVICE)
        address = Address.parse(f"redis+sentinel://{group.addresses}/{SERVICE}/0")
        async with client_of(address, retry=Retry(NoBackoff(), 0)) as client:
            await asyncio.gather(*(client.ping() for _ in range(5)))
            await first.ask("SENTINEL", "MONITOR", SERVICE, HOST, master.port, 1)
            for each in others:
                await each.kill()
            await client.connection_pool.disconnect()
            assert await client.ping()


async def test_a_stop_leaves_no_connection_to_a_sentinel_open(tmp_path: Path) -> None:
    """Unclosed connections to a removed sentinel would keep the worker's event loop from closing."""
    async with running_sentinels(tmp_path, replicas=0) as group:
        first, master = group.sentinels[0], await group.master()
        url = f"redis+sentinel://{group.addresses}/{SERVICE}/0"

        async def task_connections() -> set[str]:
            """Return the ids of connections that have run a periodic task."""
            clients = await master.ask("CLIENT LIST", "TYPE", "normal")
            return {each["id"] for each in clients if each["cmd"] == "evalsha"}

        async with running_workers(url, "deltaloom", **ALL_AT_ONCE) as (worker,):
            await wait_until(task_connections, 30, message="periodic tasks have connections")
            await first.ask("SENTINEL", "REMOVE", SERVICE)
            await master.ask("CLIENT", "KILL", "TYPE", "normal")
            await wait_until(task_connections, 30, message="they have connections again")
            assert await worker.stop() == 0
            assert "unclosed" not in worker.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("waits", [{}, WAITING], ids=["asynchronous", "waiting for the replica"])
async def test_the_master_dies_in_mid_stream(tmp_path: Path, waits: dict[str, object]) -> None:
    """Workers survive a failover, and read again what the dead master had not replicated."""
    # Few events: each small batch waits, and all is published again while there is no replica.
    generated = Generated(Partitions(), "sentinel", 30 if waits else 60, producers=4)
    async with running_sentinels(tmp_path) as group:
        url = f"redis+sentinel://{group.addresses}/{SERVICE}/0"

        async def master_of(_: StreamNames) -> Node:
            return await group.master()

        producers = CarefulProducers(generated, master_of)
        client = client_of(Address.parse(url), retry=Retry(NoBackoff(), 0))
        async with client, running_workers(url, "deltaloom", 2, **SETTINGS, **waits) as workers:
            await generated.keep_all(client)
            publishing = asyncio.create_task(producers.publish())
            await producers.have_begun(generated.lanes[0])
            dead = await group.master()
            (heir,) = [node for node in group.servers if node is not dead]
            await kill_in_mid_stream(dead, heir, Partitions().all[0], workers[0])
            published = producers.published
            producers.go_on()
            await group.wait_until_replaced(dead)
            if waits:
                await generated.wait_until_unread(client)
            assert producers.published == published, "nothing is published without a replica"
            await group.start(dead)  # it joins as the replica
            await publishing
            assert producers.published == generated.entries > published
            await generated.judge(client)
            for worker in workers:
                assert worker.has_logged("redis unavailable, retrying")
                for line in worker.lines():
                    assert line["level"] != "error", line.get("exception", line)
