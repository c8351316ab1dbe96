"""The one place that makes clients: of one server, of a cluster, of a master that sentinels know.

A cluster's client has every method that is used here, and is no `Redis` by type: to the rest of the program
all three are one.
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
from service.storage.client.reading_client import Input, PatientCluster, PatientMaster, PatientRedis, gather
from service.storage.client.reads import Reads
from service.storage.client.sentinel import BlockingMaster, Master

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.address import Address

_CONNECTIONS = 10_000
"""To a server, at most: one for each partition that is read, and a few. redis-py would allow 100."""

_READ_BYTES = 256 * 1024
"""Taken from the socket at once: a batch has some hundred thousand bytes."""

PatientClient = PatientRedis | PatientMaster | PatientCluster


class _Kinds(NamedTuple):
    """A client of each mode."""

    standalone: type[Redis] = Redis
    sentinel: type[Master] = Master
    cluster: type[Cluster] = Cluster


def client_of(address: Address, *, single_connection: bool = False, **options: Any) -> Redis:
    """A client for asyncio that gives bytes; `options` are those of redis-py's connections."""
    return cast("Redis", _made(_Kinds(), address, single_connection=single_connection, options=options))


def patient_client_of(address: Address, inputs: Mapping[str, Input]) -> PatientClient:
    """A client for FastStream, of these streams."""
    kinds = _Kinds(PatientRedis, PatientMaster, PatientCluster)
    # What has failed is read again by those who wait. redis-py would ask a cluster for all replies again, and
    # add them to the ones that had come.
    options = {"socket_read_size": _READ_BYTES, "retry": Retry(NoBackoff(), 0)}
    client: PatientClient = _made(kinds, address, single_connection=False, options=options)
    client.inputs, client.latest, client.reads = inputs, {}, Reads()
    client.set_response_callback("XREADGROUP", cast("Any", gather))
    return client


def blocking_client_of(address: Address, **options: Any) -> BlockingRedis:
    """A client for a program that waits; gives bytes."""
    if address.mode == "standalone":
        return BlockingRedis.from_url(address.urls[0], **options)
    hosts, arguments = address.hosts, _arguments(address)
    if address.mode == "sentinel":
        login = address.sentinel_login
        return BlockingMaster.found_by(hosts, login, address.service, **{**options, **arguments})
    nodes = [BlockingClusterNode(host, port) for host, port in hosts]  # type: ignore[no-untyped-call]
    cluster = BlockingCluster(startup_nodes=nodes, require_full_coverage=False, **{**options, **arguments})
    return cast("BlockingRedis", cluster)


def _made(kinds: _Kinds, address: Address, *, single_connection: bool, options: dict[str, Any]) -> Any:
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
    # Whether the slots that have a server are served while others have none, the servers say.
    return kinds.cluster(startup_nodes=nodes, require_full_coverage=False, **{**options, **arguments})


def _arguments(address: Address) -> dict[str, Any]:
    """What the URL says beside its hosts."""
    arguments: dict[str, Any] = {**parse_url(address.urls[0])}
    if arguments.pop("connection_class", None) is SSLConnection:
        arguments["ssl"] = True
    elsewhere = ("host", "port", "db") if address.mode == "cluster" else ("host", "port")
    return {name: value for name, value in arguments.items() if name not in elsewhere}
