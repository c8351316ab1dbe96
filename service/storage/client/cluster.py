"""A cluster's clients, mended where redis-py's would not do.

For a command whose keys are not at a fixed place redis-py asks one node, with `COMMAND GETKEYS`, before every
call. That doubles the way of each read; and when that one node is dead the read fails for as long, since
the question is asked outside of what redis-py tries again.

When the map of the cluster has changed a few times, or the cluster is down, redis-py closes all connections,
under whatever else is using them: a batch that another partition has just been given would be lost sight of
until it is claimed.

For a slot that no master has, redis-py's own for asyncio raises a KeyError, and does not read the map again.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.cluster import RedisCluster as BlockingRedisCluster
from redis.exceptions import SlotNotCoveredError

_READS = frozenset({"XREAD", "XREADGROUP"})


def _stream_of(args: tuple[Any, ...]) -> Any:
    """The stream that is read; if there are several they must lie in one slot."""
    return args[args.index(b"STREAMS") + 1]  # which is how redis-py writes it


class Cluster(RedisCluster):
    """For asyncio."""

    async def aclose(self) -> None:
        """Close all connections, those in use when they are free. The next call reads the map anew."""
        self._initialize = True
        for node in (*self.get_nodes(), *self.nodes_manager.startup_nodes.values()):
            node.update_active_connections_for_reconnect()
            await node.disconnect_free_connections()

    async def get_nodes_from_slot(self, command: str, *args: Any) -> list[ClusterNode]:
        """The master of a command's keys."""
        try:
            nodes: list[ClusterNode] = await super().get_nodes_from_slot(command, *args)
        except KeyError as error:
            self._initialize = True  # the next attempt reads the map
            raise SlotNotCoveredError(f"no master has slot {error}") from error
        return nodes

    async def _determine_slot(self, command: str, *args: Any) -> int:
        if command in _READS:
            return self.keyslot(_stream_of(args))
        return await super()._determine_slot(command, *args)


class BlockingCluster(BlockingRedisCluster):
    """For a program that waits."""

    def determine_slot(self, *args: Any) -> int | None:
        """The slot of a command's keys."""
        if args[0] in _READS:
            return int(self.keyslot(_stream_of(args)))  # type: ignore[no-untyped-call]
        return super().determine_slot(*args)
