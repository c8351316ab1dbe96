"""Create the clients of a single server, a cluster, or a master behind sentinels.

A cluster's client is not a `Redis` by type, but has every method that the program uses. So the rest of the
program treats all three as one type.

A worker has two clients, which share no connection: FastStream reads with the one of `reading_client_of`,
everything else uses the one of `client_of`. Reads and the scripts of batches go over connections that the
clients have opened, without redis-py (`direct.py`). Other calls take a free connection of their client
each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.client import Redis as BlockingRedis
from redis.cluster import ClusterNode as BlockingClusterNode

from service.storage.client.cluster import BlockingCluster, Cluster
from service.storage.client.limited_pool import LimitedPool
from service.storage.client.reading_client import ClusterReadingClient, ReadingClient
from service.storage.client.sentinel import BlockingMaster, Master

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltaloom.address import Address
    from service.storage.client.reading_client import Input

_CONNECTIONS = 10_000
"""Maximum connections of a client that is not limited; redis-py's default is 100."""

_SOCKET_BYTES = 256 * 1024
"""Bytes that redis-py reads at once for the reading client; a batch has a few hundred thousand bytes."""


def client_of(
    address: Address, *, single_connection: bool = False, limited: bool = True, **options: Any
) -> Redis:
    """Return an asyncio client whose replies are bytes, not strings. It connects at its first call.

    Args:
        address: address of the servers.
        single_connection: True for a client with a single connection. A cluster's client ignores it.
        limited: True for at most `limited_pool.AT_ONCE` connections in use, for which calls wait. A cluster's
            client ignores it, because a server that hangs must not hold up the calls of others.
        options: options of redis-py's connections. Options in the URL replace those of the same name.
    """
    options = {"max_connections": _CONNECTIONS, **options}
    if address.mode == "standalone":
        pool_kind = LimitedPool if limited else ConnectionPool
        pool = pool_kind.from_url(address.urls[0], **options)
        client = Redis(connection_pool=pool, single_connection_client=single_connection)
        client.auto_close_connection_pool = True
        return client
    hosts, arguments = address.hosts, _arguments(address)
    if address.mode == "sentinel":
        login, options = address.sentinel_login, {**options, **arguments}
        return Master.found_by(
            hosts, login, address.service, single=single_connection, limited=limited, **options
        )
    nodes = [ClusterNode(host, port) for host, port in hosts]
    # The servers' own setting decides whether slots are served while other slots have no master.
    cluster = Cluster(startup_nodes=nodes, require_full_coverage=False, **{**options, **arguments})
    return cast("Redis", cluster)


def reading_client_of(address: Address, inputs: Mapping[str, Input], linger: float = 0.0) -> ReadingClient:
    """Return the client with which FastStream reads the streams in `inputs`; it connects at the first read.

    Args:
        address: address of the servers.
        inputs: the inputs by the names of their streams.
        linger: maximum seconds for which a batch stays open for further entries after its first one.
    """
    # The reading client retries failed reads. If redis-py did, it would send all commands of a cluster's
    # pipeline again, and their replies would be added to those that have come.
    client = client_of(address, limited=False, socket_read_size=_SOCKET_BYTES, retry=Retry(NoBackoff(), 0))
    kind = ClusterReadingClient if address.mode == "cluster" else ReadingClient
    return kind(client, inputs, linger)


def blocking_client_of(address: Address, **options: Any) -> BlockingRedis:
    """Return a blocking client whose replies are bytes, not strings.

    A cluster's client connects at once, the others at their first call. Options in the URL replace `options`
    of the same name, which are those of redis-py's connections.
    """
    if address.mode == "standalone":
        return BlockingRedis.from_url(address.urls[0], **options)
    hosts, arguments = address.hosts, _arguments(address)
    if address.mode == "sentinel":
        login = address.sentinel_login
        return BlockingMaster.found_by(hosts, login, address.service, **{**options, **arguments})
    nodes = [BlockingClusterNode(host, port) for host, port in hosts]  # type: ignore[no-untyped-call]
    cluster = BlockingCluster(startup_nodes=nodes, require_full_coverage=False, **{**options, **arguments})
    return cast("BlockingRedis", cluster)


def _arguments(address: Address) -> dict[str, Any]:
    """Return the options of a connection that the URL gives, such as its login, without hosts and ports.

    The option `ssl` is True for TLS. In a cluster, there is no `db`.
    """
    arguments: dict[str, Any] = {**parse_url(address.urls[0])}
    if arguments.pop("connection_class", None) is SSLConnection:
        arguments["ssl"] = True
    elsewhere = ("host", "port", "db") if address.mode == "cluster" else ("host", "port")
    return {name: value for name, value in arguments.items() if name not in elsewhere}
