"""Create the clients of a single server, a cluster, or a master behind sentinels.

A cluster's client is not a `Redis` by type, but has every method that the program uses. So the rest of the
program treats all three as one type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.client import Redis as BlockingRedis
from redis.cluster import ClusterNode as BlockingClusterNode

from service.storage.client.cluster import BlockingCluster, Cluster
from service.storage.client.reading_client import Input, ReadingCluster, ReadingMaster, ReadingRedis, gather
from service.storage.client.reads import Reads
from service.storage.client.sentinel import BlockingMaster, Master

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.address import Address

_CONNECTIONS = 10_000
"""Maximum connections to a server: one for each partition and a few more; redis-py's default is 100."""

_READ_BYTES = 256 * 1024
"""Bytes read from a socket at once; a batch has a few hundred thousand."""

ReadingClient = ReadingRedis | ReadingMaster | ReadingCluster


class _ClientClasses(NamedTuple):
    """The client class of each mode."""

    standalone: type[Redis] = Redis
    sentinel: type[Master] = Master
    cluster: type[Cluster] = Cluster


def client_of(address: Address, *, single_connection: bool = False, **options: Any) -> Redis:
    """Return an asyncio client without decoded replies; `options` are those of redis-py's connections."""
    return cast(
        "Redis", _create(_ClientClasses(), address, single_connection=single_connection, options=options)
    )


def reading_client_of(address: Address, inputs: Mapping[str, Input]) -> ReadingClient:
    """Return the client with which FastStream reads these streams."""
    kinds = _ClientClasses(ReadingRedis, ReadingMaster, ReadingCluster)
    # The callers retry failed reads. On a cluster, redis-py would send all commands of a pipeline again and
    # add their replies to those already received.
    options = {"socket_read_size": _READ_BYTES, "retry": Retry(NoBackoff(), 0)}
    client: ReadingClient = _create(kinds, address, single_connection=False, options=options)
    client.inputs, client.latest, client.reads = inputs, {}, Reads()
    client.set_response_callback("XREADGROUP", cast("Any", gather))
    return client


def blocking_client_of(address: Address, **options: Any) -> BlockingRedis:
    """Return a blocking client without decoded replies."""
    if address.mode == "standalone":
        return BlockingRedis.from_url(address.urls[0], **options)
    hosts, arguments = address.hosts, _arguments(address)
    if address.mode == "sentinel":
        login = address.sentinel_login
        return BlockingMaster.found_by(hosts, login, address.service, **{**options, **arguments})
    nodes = [BlockingClusterNode(host, port) for host, port in hosts]  # type: ignore[no-untyped-call]
    cluster = BlockingCluster(startup_nodes=nodes, require_full_coverage=False, **{**options, **arguments})
    return cast("BlockingRedis", cluster)


def _create(
    kinds: _ClientClasses, address: Address, *, single_connection: bool, options: dict[str, Any]
) -> Any:
    options = {"max_connections": _CONNECTIONS, **options}
    if address.mode == "standalone":
        return kinds.standalone.from_url(
            address.urls[0], single_connection_client=single_connection, **options
        )
    hosts, arguments = address.hosts, _arguments(address)
    if address.mode == "sentinel":
        return kinds.sentinel.found_by(
            hosts,
            address.sentinel_login,
            address.service,
            single=single_connection,
            **{**options, **arguments},
        )
    nodes = [ClusterNode(host, port) for host, port in hosts]
    # The servers' own setting decides whether slots are served while other slots have no master.
    return kinds.cluster(startup_nodes=nodes, require_full_coverage=False, **{**options, **arguments})


def _arguments(address: Address) -> dict[str, Any]:
    """Return the options in the URL, without its hosts."""
    arguments: dict[str, Any] = {**parse_url(address.urls[0])}
    if arguments.pop("connection_class", None) is SSLConnection:
        arguments["ssl"] = True
    elsewhere = ("host", "port", "db") if address.mode == "cluster" else ("host", "port")
    return {name: value for name, value in arguments.items() if name not in elsewhere}
