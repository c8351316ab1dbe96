"""A Redis Cluster as processes on this machine, with real slots, gossip and failovers.

async with running_cluster(tmp_path, replicas=1) as cluster:
    await cluster.owner(slot).kill()
    await cluster.wait_until_ok()
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from embedded.free_ports import HOST, free_port
from tests.nodes import DURABLE, PROMPT, Node, replication_of, running, wait_until_caught_up
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SLOTS = 16384
NODE_TIMEOUT_MS = 1500
"""Milliseconds of silence after which a node counts as dead.

Its replica stands for election a second later.
"""

PATIENT_MS = 15_000
"""Node timeout for tests without failovers, so that no node counts as dead because the machine is slow."""

_FAILOVER_WITHIN = 60.0


@dataclass(frozen=True)
class _Place:
    """A parsed line of CLUSTER NODES: https://redis.io/docs/latest/commands/cluster-nodes/."""

    node_id: str
    port: int
    flags: frozenset[str]
    master_id: str
    linked: bool
    slots: tuple[range, ...]

    @classmethod
    def read(cls, line: str) -> _Place:
        node_id, address, flags, master_id, _, _, _, link, *slots = line.split()
        ranges = (slot.partition("-") for slot in slots if not slot.startswith("["))
        return cls(
            node_id,
            int(address.split("@")[0].rpartition(":")[2]),
            frozenset(flags.split(",")),
            master_id,
            link == "connected",
            tuple(range(int(first), int(last or first) + 1) for first, _, last in ranges),
        )


@dataclass(frozen=True)
class Cluster:
    """The nodes of a cluster. The first three begin as masters; later the nodes know the masters."""

    nodes: tuple[Node, ...]

    @property
    def alive(self) -> list[Node]:
        """Return the running nodes."""
        return [node for node in self.nodes if node.alive]

    @property
    def addresses(self) -> str:
        """Return all nodes as `host:port,host:port`."""
        return ",".join(node.address for node in self.nodes)

    @property
    def startup_nodes(self) -> list[tuple[str, int]]:
        """Return host and port of all nodes."""
        return [(HOST, node.port) for node in self.nodes]

    async def slot_of(self, key: str) -> int:
        """Return the slot of a key, as a node computes it."""
        return int(await self.alive[0].ask("CLUSTER", "KEYSLOT", key))

    async def masters(self) -> list[Node]:
        """Return the nodes that serve slots, according to a running node."""
        return [self._at(place.port) for place in await self._places() if place.slots and _well(place)]

    async def owner(self, slot: int) -> Node:
        """Return the master of a slot."""
        (owner,) = [place for place in await self._places() if any(slot in each for each in place.slots)]
        return self._at(owner.port)

    async def replicas_of(self, master: Node) -> list[Node]:
        """Return the replicas of this master."""
        places = await self._places()
        (own,) = [place for place in places if place.port == master.port]
        return [self._at(place.port) for place in places if place.master_id == own.node_id and _well(place)]

    async def wait_until_ok(self) -> None:
        """Wait until all running nodes agree on one map that covers all slots."""
        await wait_until(self._is_ok, _FAILOVER_WITHIN, message="the cluster serves all slots", interval=0.05)

    async def wait_until_replaced(self, dead: Node) -> None:
        """Wait until a replica has replaced a killed master, and all slots are served."""

        async def replaced() -> bool:
            return await self._is_ok() and dead not in await self.masters()

        await wait_until(replaced, _FAILOVER_WITHIN, message=f"a replica replaces {dead!r}", interval=0.05)

    async def wait_until_replicated(self) -> None:
        """Wait until each running replica has all data of its master."""
        for master in await self.masters():
            await wait_until_caught_up(master, await self.replicas_of(master))

    async def start(self, node: Node) -> None:
        """Start a killed node again, and wait until it has rejoined the cluster."""
        await node.start()
        await self.wait_until_ok()

    async def migrate_slot(self, slot: int, target: Node) -> int:
        """Move a slot to another master, as `redis-cli --cluster` does; return the number of its keys."""
        await self.begin_migration(slot, target)
        moved = 0
        while count := await self.move_keys(slot, target):
            moved += count
        await self.end_migration(slot, target)
        return moved

    async def begin_migration(self, slot: int, target: Node) -> None:
        """Mark the slot as migrating on both sides: clients get ASK redirects for keys not at the source."""
        source = await self.owner(slot)
        await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", await _id_of(source))
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", await _id_of(target))

    async def move_keys(self, slot: int, target: Node, limit: int = 100) -> int:
        """Move some keys of a migrating slot, and return their number."""
        source = await self.owner(slot)
        keys = await source.ask("CLUSTER", "GETKEYSINSLOT", slot, limit)
        if keys:
            await source.ask("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    async def end_migration(self, slot: int, target: Node) -> None:
        """Assign the slot to the target, on all masters."""
        source = await self.owner(slot)
        target_id = await _id_of(target)
        others = [node for node in await self.masters() if node not in {source, target}]
        for node in (target, source, *others):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        await self.wait_until_ok()

    def _at(self, port: int) -> Node:
        (node,) = [node for node in self.nodes if node.port == port]
        return node

    async def _places(self) -> list[_Place]:
        return await _places(self.alive[0])

    async def _is_ok(self) -> bool:
        try:
            maps = [await _map(node) for node in self.alive]
        except RedisError:
            return False
        return None not in maps and len(set(maps)) == 1


@asynccontextmanager
async def running_cluster(
    folder: Path, replicas: int = 0, node_timeout_ms: int = NODE_TIMEOUT_MS, **options: str
) -> AsyncIterator[Cluster]:
    """Run a cluster of three masters, each with this number of replicas.

    `options` are configuration of the servers.

    Raises:
        AssertionError: a node did not start, or the nodes did not form a cluster.
    """
    settings = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(node_timeout_ms),
        "cluster-replica-validity-factor": "0",
        **DURABLE,
        **PROMPT,
        **{name.replace("_", "-"): value for name, value in options.items()},
    }
    # The cluster bus port is 10,000 above the port by default, which may be too high for a free port.
    nodes = tuple(
        Node(folder / f"node-{number}", settings | {"cluster-port": str(free_port())})
        for number in range(3 * (1 + replicas))
    )
    async with running(nodes):
        cluster = Cluster(nodes)
        await _join(cluster)
        yield cluster


async def _join(cluster: Cluster) -> None:
    """Form the cluster, as `redis-cli --cluster create` does."""
    first, *others = cluster.nodes
    for node in others:
        bus = (await node.ask("CONFIG", "GET", "cluster-port"))["cluster-port"]
        await first.ask("CLUSTER", "MEET", HOST, node.port, bus)
    masters, replicas = cluster.nodes[:3], cluster.nodes[3:]
    bounds = [SLOTS * number // 3 for number in range(4)]
    for master, start, end in zip(masters, bounds, bounds[1:], strict=False):
        await master.ask("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
    await wait_until(lambda: _all_met(cluster), 30, message="all nodes know each other")
    for number, replica in enumerate(replicas):
        await replica.ask("CLUSTER", "REPLICATE", await _id_of(masters[number % 3]))
    await wait_until(lambda: _all_follow(cluster, len(replicas)), 30, message="all nodes know the replicas")
    await cluster.wait_until_ok()
    await cluster.wait_until_replicated()


async def _all_met(cluster: Cluster) -> bool:
    views = await asyncio.gather(*(_places(node) for node in cluster.nodes))
    return all(
        len(view) == len(cluster.nodes) and not any("handshake" in place.flags for place in view)
        for view in views
    )


async def _all_follow(cluster: Cluster, replicas: int) -> bool:
    """Return whether each node sees this number of healthy replicas."""
    views = await asyncio.gather(*(_places(node) for node in cluster.nodes))
    return all(sum(place.master_id != "-" and _well(place) for place in view) == replicas for view in views)


async def _map(node: Node) -> frozenset[tuple[str, tuple[range, ...]]] | None:
    """Return node ids with their slots, as a node sees them.

    None if the node does not serve slots, or is a replica without a link to its master.
    """
    if (await node.ask("CLUSTER INFO"))["cluster_state"] != "ok":
        return None
    replication = await replication_of(node)
    if replication["role"] == "slave" and replication["master_link_status"] != "up":
        return None
    return frozenset((place.node_id, place.slots) for place in await _places(node) if place.slots)


async def _places(node: Node) -> list[_Place]:
    answer: str = await node.ask("CLUSTER", "NODES")
    return [_Place.read(line) for line in answer.splitlines()]


async def _id_of(node: Node) -> str:
    return str(await node.ask("CLUSTER", "MYID"))


def _well(place: _Place) -> bool:
    return place.linked and not place.flags & {"fail", "noaddr", "handshake"}
