"""Clients of a cluster, with fixes for five problems of redis-py.

1. If a command's keys have no fixed position, redis-py sends `COMMAND GETKEYS` to one node before every call.
   That doubles the latency of each read. While that node is down, all reads fail, because redis-py does not
   retry this request.
2. After a few changes of the slot map, or while the cluster is down, redis-py closes all connections, even
   those in use. A batch that another partition is reading would stay pending until it is claimed.
3. For a slot without a master, redis-py's asyncio client raises a KeyError and does not read the slot map
   again.
4. After a lost connection, redis-py closes all free connections, even if a task has just taken one. For that
   task uvloop raises a RuntimeError ("the handler is closed"), and redis-py does not send its command again.
5. Before it has read the slot map, redis-py takes a command's keys for unknown and sends it to any node. With
   many commands at once, their redirections close connections in use, and some commands are executed twice.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.cluster import RedisCluster as BlockingRedisCluster
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import SlotNotCoveredError

_READS = frozenset({"XREAD", "XREADGROUP"})


def _stream_of(args: tuple[Any, ...]) -> Any:
    """Return the first stream of a read; if it has several, they must be in one slot."""
    return args[args.index(b"STREAMS") + 1]  # redis-py passes the keyword in this form


class RetriedConnection(Connection):
    """A connection that raises an error of redis-py if it is closed, so that redis-py tries again."""

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        """Send a command.

        Raises:
            redis.exceptions.ConnectionError: the connection is closed.
        """
        try:
            await super().send_packed_command(*args, **kwargs)
        except (AttributeError, RuntimeError) as error:  # its socket is gone already, or closed
            raise LostConnectionError(str(error)) from error


class RetriedTLSConnection(SSLConnection, RetriedConnection):
    """A `RetriedConnection` over TLS."""


class Cluster(RedisCluster):
    """An asyncio client of a cluster."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        kind = RetriedTLSConnection if options.get("ssl") else RetriedConnection
        self.connection_kwargs["connection_class"] = kind  # of all nodes that the slot map names
        for node in self.startup_nodes:
            node.connection_class = kind

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a command on the master that has its keys.

        If the slot map is unknown or was found to be outdated, read it first.
        """
        if self._initialize:
            await self.initialize()
        return await super().execute_command(*args, **kwargs)

    async def aclose(self) -> None:
        """Close the free connections now and the others after use. The next call reads the slot map again."""
        self._initialize = True
        for node in (*self.get_nodes(), *self.nodes_manager.startup_nodes.values()):
            node.update_active_connections_for_reconnect()
            await node.disconnect_free_connections()

    async def get_nodes_from_slot(self, command: str, *args: Any) -> list[ClusterNode]:
        """Return the master that has a command's keys.

        Raises:
            SlotNotCoveredError: no master has the slot; the next attempt reads the slot map again.
        """
        try:
            nodes: list[ClusterNode] = await super().get_nodes_from_slot(command, *args)
        except KeyError as error:
            self._initialize = True  # the next attempt reads the slot map
            raise SlotNotCoveredError(f"no master has slot {error}") from error
        return nodes

    async def _determine_slot(self, command: str, *args: Any) -> int:
        if command in _READS:
            return self.keyslot(_stream_of(args))
        return await super()._determine_slot(command, *args)


class BlockingCluster(BlockingRedisCluster):
    """A blocking client of a cluster."""

    def determine_slot(self, *args: Any) -> int | None:
        """Return the slot of a command's keys, or None for a command without keys."""
        if args[0] in _READS:
            return int(self.keyslot(_stream_of(args)))  # type: ignore[no-untyped-call]
        return super().determine_slot(*args)
