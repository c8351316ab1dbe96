"""Tests of the server groups that other tests rely on: slots move, and masters are replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel

from tests.cluster_servers import PATIENT_MS, SLOTS, running_cluster
from tests.sentinel_servers import SERVICE, running_sentinels
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster_servers import Cluster

KEYS = [f"{{7}}:{number}" for number in range(250)]


def client_of(cluster: Cluster) -> RedisCluster:
    """Return a client that knows all nodes of the cluster."""
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in cluster.startup_nodes],
        decode_responses=True,
    )


async def test_a_slot_moves_with_its_keys(tmp_path: Path) -> None:
    """Keys can be read in the middle of a migration and after it. Other tests rely on a real migration."""
    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster, client_of(cluster) as client:
        for key in KEYS:
            await client.set(key, key)
        slot = await cluster.slot_of(KEYS[0])
        source = await cluster.owner(slot)
        (target, _) = [node for node in await cluster.masters() if node is not source]
        await cluster.begin_migration(slot, target)
        assert await cluster.move_keys(slot, target, limit=100) == 100
        assert [await client.get(key) for key in KEYS] == KEYS, "half way, the client is sent to both"
        assert await cluster.migrate_slot(slot, target) == 150
        assert await cluster.owner(slot) is target
        assert await target.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 250
        assert [await client.get(key) for key in KEYS] == KEYS


async def test_a_replica_takes_the_place_of_a_dead_master(tmp_path: Path) -> None:
    """A replica replaces a dead master, which comes back as a replica. Other tests rely on it."""
    async with running_cluster(tmp_path, replicas=1) as cluster, client_of(cluster) as client:
        slot = await cluster.slot_of(KEYS[0])
        dead = await cluster.owner(slot)
        (heir,) = await cluster.replicas_of(dead)
        await client.set(KEYS[0], "kept")
        await cluster.wait_until_replicated()
        await dead.kill()
        await cluster.wait_until_replaced(dead)
        assert await cluster.owner(slot) is heir
        assert await client.get(KEYS[0]) == "kept"
        await cluster.start(dead)

        async def follows() -> bool:
            return await cluster.replicas_of(heir) == [dead]

        await wait_until(follows, 30, message="the dead master is back as a replica")
        assert sum(len(each) for each in await slots_of(cluster)) == SLOTS


async def slots_of(cluster: Cluster) -> list[range]:
    """Return the ranges of slots that are served."""
    answer = await cluster.alive[0].ask("CLUSTER", "SLOTS")
    return [range(first, last + 1) for first, last, *_ in answer]


async def test_sentinels_replace_a_dead_master(tmp_path: Path) -> None:
    """Sentinels replace a dead master without loss of replicated keys."""
    async with running_sentinels(tmp_path, replicas=2) as group:
        sentinel = Sentinel(group.hosts, decode_responses=True)  # type: ignore[no-untyped-call]
        client = sentinel.master_for(SERVICE)
        try:
            await client.set("key", "kept")
            await group.wait_until_replicated()
            dead = await group.master()
            await dead.kill()
            await group.wait_until_replaced(dead)
            assert await group.master() is not dead
            assert await client.get("key") == "kept"
        finally:
            await client.aclose()
            for each in sentinel.sentinels:
                await each.aclose()
