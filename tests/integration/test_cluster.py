"""Workers on a real Redis Cluster: the whole flow, a slot that moves, a master that dies."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from deltaloom import GROUP, Partitions
from service.address import Address
from service.keys import Keys
from service.patience import Patience
from service.storage.connection import client_of, patient_client_of
from service.storage.group import ConsumerGroup
from service.storage.patient import ENTRIES_AT_ONCE, Input
from service.storage.scripts import Script
from tests.cluster_servers import PATIENT_MS, running_cluster
from tests.generated import SETTINGS, Generated
from tests.mid_stream import CarefulProducers, kill_in_mid_stream
from tests.waiting import wait_until
from tests.workers import running_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

    from deltaloom import StreamNames
    from tests.cluster_servers import Cluster
    from tests.nodes import Node
    from tests.workers import WorkerProcess

COUNT = 6
"""Partitions: enough that each of the three masters has some."""

pytestmark = pytest.mark.timeout(240)


def url_of(cluster: Cluster) -> str:
    """As an operator writes it."""
    return f"redis+cluster://{cluster.addresses}"


@asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[Redis]:
    """A client that tries nothing twice."""
    client = client_of(Address.parse(url_of(cluster)), retry=Retry(NoBackoff(), 0))
    try:
        yield client
    finally:
        await client.aclose()


async def owner_of(cluster: Cluster, names: StreamNames) -> Node:
    """The master that has a partition."""
    return await cluster.owner(await cluster.slot_of(names.deltas))


def assert_nothing_failed(workers: list[WorkerProcess]) -> None:
    """A worker in trouble waits. It has no error to log, and no traceback."""
    for worker in workers:
        for line in worker.lines():
            assert line["level"] != "error", line.get("exception", line)


async def test_the_whole_flow(tmp_path: Path) -> None:
    """Keys that lie in several slots, or commands that go to the wrong node, would stop everything."""
    generated = Generated(Partitions(COUNT), "cluster", 40)
    async with running_cluster(tmp_path) as cluster, connected(cluster) as client:
        owners = {await owner_of(cluster, names) for names in Partitions(COUNT).all}
        assert len(owners) == 3
        url, settings = url_of(cluster), {**SETTINGS, "partitions": COUNT}
        async with (
            running_workers(url, "deltaloom", 1, **settings, serve_partitions="0-2") as first,
            running_workers(url, "deltaloom", 1, **settings, serve_partitions="2-5") as second,
        ):
            await generated.keep_all(client)
            await generated.publish(client)
            await generated.judge(client)
            assert_nothing_failed([*first, *second])
        # That would be a question to one of the nodes before each read.
        for node in cluster.nodes:
            assert "cmdstat_command|getkeys" not in await node.ask("INFO", "commandstats")


async def test_slots_move_in_mid_stream(tmp_path: Path) -> None:
    """Adding a node to a cluster would lose what is on its way, or stop the workers."""
    generated = Generated(Partitions(COUNT), "migration", 60)
    async with (
        running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster,
        connected(cluster) as client,
        running_workers(url_of(cluster), "deltaloom", 2, **SETTINGS, partitions=COUNT) as workers,
    ):
        await generated.keep_all(client)
        await generated.publish(client, 0.2)
        for names in Partitions(COUNT).all[:3]:
            publishing = asyncio.create_task(generated.publish(client, 0.4))
            await move(cluster, await cluster.slot_of(names.deltas))
            await publishing
        await generated.publish(client)
        await generated.judge(client)
        assert_nothing_failed(workers)


async def test_a_backlog_is_read_while_its_slot_moves(tmp_path: Path) -> None:
    """A reader that asks a node for many replies would not find the node that has them now."""
    names, total = Partitions(COUNT).all[0], 7 * ENTRIES_AT_ONCE // 2
    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster, connected(cluster) as client:
        group = ConsumerGroup(client, Keys(names), "one")
        await group.ensure()
        for _ in range(total):
            await client.xadd(names.deltas, {"event": "{}"})
        address = Address.parse(url_of(cluster))
        reader = patient_client_of(address, {names.deltas: Input(group, Patience())})
        sizes: list[int] = []
        ids: list[bytes] = []
        try:
            while sum(sizes) < total:
                reply: Any = await reader.xreadgroup(GROUP, "one", {names.deltas: ">"}, count=5000, block=100)
                ((_, ((_, entries),)),) = reply
                sizes.append(len(entries))
                ids += [entry_id for entry_id, _ in entries]
                if len(sizes) == 2:
                    await move(cluster, await cluster.slot_of(names.deltas))
        finally:
            await reader.aclose()
        assert sizes[:2] == [ENTRIES_AT_ONCE, 2 * ENTRIES_AT_ONCE]
        assert len(ids) == len(set(ids)) == total


async def move(cluster: Cluster, slot: int) -> None:
    """Move a slot to the next master, a few keys at a time, while others use them."""
    owner, masters = await cluster.owner(slot), await cluster.masters()
    target = masters[(masters.index(owner) + 1) % len(masters)]
    await cluster.begin_migration(slot, target)

    async def all_moved() -> bool:
        return not await cluster.move_keys(slot, target, limit=2)

    await wait_until(all_moved, 60, message=f"slot {slot} is moved")
    await cluster.end_migration(slot, target)


async def test_a_master_dies_in_mid_stream(tmp_path: Path) -> None:
    """A failover would stop the workers for good, or have them take what is lost with it for done."""
    generated = Generated(Partitions(COUNT), "failover", 120)
    async with running_cluster(tmp_path, replicas=1) as cluster:
        producers = CarefulProducers(generated, partial(owner_of, cluster))
        async with running_workers(url_of(cluster), "deltaloom", 2, **SETTINGS, partitions=COUNT) as workers:
            async with connected(cluster) as client:
                await generated.keep_all(client)
            publishing = asyncio.create_task(producers.publish())
            lane = max(generated.lanes, key=lambda lane: len(lane.left))
            await producers.have_begun(lane)
            dead = await owner_of(cluster, lane.names)
            (heir,) = await cluster.replicas_of(dead)
            await kill_in_mid_stream(dead, heir, lane.names)
            published = producers.published
            await cluster.wait_until_replaced(dead)
            await cluster.start(dead)  # as the replica
            await publishing
            assert producers.published == generated.entries > published
            async with connected(cluster) as client:
                await generated.judge(client)
            assert_nothing_failed(workers)
            assert any(worker.said("redis is away, waiting for it") for worker in workers)


async def test_a_script_runs_where_its_slot_goes(tmp_path: Path) -> None:
    """A partition would stand still for as long as its slot is on its way to a master that is new."""
    async with running_cluster(tmp_path) as cluster:
        client = client_of(Address.parse(url_of(cluster)))
        try:
            names, script = Partitions(COUNT).all[0], Script(client, "load")
            assert await script(keys=[names.deltas], args=[0]) == [[]]
            source = await owner_of(cluster, names)
            target = next(node for node in await cluster.masters() if node is not source)
            slot = await cluster.slot_of(names.deltas)
            await cluster.begin_migration(slot, target)
            assert await script(keys=[names.deltas], args=[0]) == [[]]
        finally:
            await client.aclose()
