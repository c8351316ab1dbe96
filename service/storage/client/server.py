"""Assess a server: its version, eviction policy, durability and replication.

Some managed servers forbid INFO or CONFIG. A value that cannot be read is unknown, which is not a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError

from service.ports.storage import StorageUnavailableError
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from redis.asyncio import Redis
    from redis.asyncio.cluster import ClusterNode

State = Literal["ok", "warn", "fail"]

_STATES: tuple[State, ...] = ("ok", "warn", "fail")

OLDEST = {"Redis": (7, 0), "Valkey": (7, 2)}

_NEARLY_FULL = 0.9
"""Used share of the memory above which the finding is a warning."""

_DURABILITY: dict[str, tuple[State, str]] = {
    "always": ("ok", "append-only file, written to disk before each answer: nothing acknowledged is lost"),
    "everysec": (
        "ok",
        "append-only file, written to disk every second: a crash of the machine loses about a second",
    ),
    "no": (
        "warn",
        "append-only file, written to disk when the system decides: a crash of the machine loses about 30 s",
    ),
    "": ("ok", "append-only file; CONFIG GET appendfsync is not permitted, so the sync interval is unknown"),
}


class ServerFinding(NamedTuple):
    """The result of one check: its name, the state that it found, and a text for people."""

    what: str
    state: State
    says: str


class Server(NamedTuple):
    """The replies of a server to INFO, and to CONFIG GET for `save` and `appendfsync`.

    A reply is empty if the command is not permitted. `url` is `<host>:<port>` for a master of a cluster.
    """

    url: str
    info: Mapping[str, Any]
    config: Mapping[str, str]
    away: bool = False
    """True for a master of a cluster that does not answer; both replies are then empty."""


async def ask(client: Redis, url: str) -> list[Server]:
    """Query the server, or every master of a cluster, and return one `Server` for each.

    A master that does not answer is returned too, with `away`. `url` names a single server in findings; in a
    cluster it is ignored.

    Raises:
        StorageUnavailableError: the single server does not answer, or no node of the cluster does.
    """
    if not isinstance(client, RedisCluster):
        return [await _ask(client, url)]
    with unavailable_if_away():
        await client.initialize()
    return [await _ask_master(client, node) for node in client.get_primaries()]


async def _ask_master(client: Redis, node: ClusterNode) -> Server:
    try:
        return await _ask(client, node.name, target_nodes=node)
    except StorageUnavailableError:
        return Server(node.name, {}, {}, away=True)


async def _ask(client: Redis, url: str, **where: Any) -> Server:
    with unavailable_if_away():
        info = await _if_permitted(lambda: client.info(**where))
        config = await _if_permitted(lambda: client.config_get("save", "appendfsync", **where))
    return Server(url, info, config)


def assess(servers: Sequence[Server]) -> list[ServerFinding]:
    """Return the worst finding of each check: `reached`, `memory`, `eviction`, `persistence`, `replication`.

    If several masters have a finding of the check, its text ends with how many of them are in the same state.
    A master that is away is only checked by `reached`. Replication is not checked if `servers` has only one.
    """
    questions: list[Callable[[Server], ServerFinding]] = [memory, eviction, persistence]
    if servers[1:]:
        questions.append(replication)
    answering = [server for server in servers if not server.away]
    found = [[question(server) for server in answering] for question in questions if answering]
    return [_worst(findings) for findings in ([reached(server) for server in servers], *found)]


def _worst(findings: Sequence[ServerFinding]) -> ServerFinding:
    worst = max(findings, key=lambda finding: _STATES.index(finding.state))
    if not findings[1:]:
        return worst
    alike = sum(finding.state == worst.state for finding in findings)
    return worst._replace(says=f"{worst.says} ({alike} of {len(findings)} masters)")


async def _if_permitted(ask: Callable[[], Awaitable[Mapping[Any, Any]]]) -> Mapping[str, Any]:
    try:
        return await ask()
    except ResponseError:  # NOPERM, or an unknown command
        return {}


def reached(server: Server) -> ServerFinding:
    """Report the server's version: `fail` if it is too old or the server is a replica, `warn` if it is away.

    The state is `ok` if the version is unknown, because INFO is not permitted.
    """
    if server.away:
        return ServerFinding(
            "server", "warn", f"{server.url} does not answer: its partitions wait until it does"
        )
    if not server.info:
        return ServerFinding(
            "server", "ok", f"{server.url} answers; INFO is not permitted, so its version is unknown"
        )
    name = "Valkey" if "valkey_version" in server.info else "Redis"
    version = str(server.info.get(f"{name.lower()}_version", "0"))
    says = f"{name} {version} at {server.url}"
    oldest = OLDEST[name]
    if tuple(int(n) for n in version.split(".")[:2] if n.isdecimal()) < oldest:
        return ServerFinding(
            "server", "fail", f"{says} is too old: {name} {oldest[0]}.{oldest[1]} or later is needed"
        )
    if server.info.get("role") == "slave":
        return ServerFinding("server", "fail", f"{says} is a read-only replica: set REDIS_URL to the primary")
    return ServerFinding("server", "ok", says)


def memory(server: Server) -> ServerFinding:
    """Report how full the server's memory is; the limit is `maxmemory`, or the memory of its machine.

    The state is `warn` above 90 % or if INFO is not permitted. It is `fail` only if the server refuses writes
    now: `maxmemory` with the policy `noeviction` is used up.
    """
    used = server.info.get("used_memory")
    if used is None:
        return ServerFinding("memory", "warn", "unknown (INFO is not permitted)")
    limited = int(server.info.get("maxmemory", 0))
    limit = limited or int(server.info.get("total_system_memory", 0))
    if not limit:
        return ServerFinding("memory", "ok", f"{mib(used)} used, without a limit")
    counted = max(0, int(used) - int(server.info.get("mem_not_counted_for_evict", 0)))
    of = "maxmemory" if limited else "the machine's memory"
    says = f"{mib(used)} of {mib(limit)} used ({used / limit:.0%} of {of})"
    if not limited or server.info.get("maxmemory_policy") != "noeviction":
        return ServerFinding("memory", "warn" if used / limit > _NEARLY_FULL else "ok", says)
    if counted >= limit:
        return ServerFinding(
            "memory", "fail", f"{says}: full, so writes are refused; docs/runbooks.md, DeltaloomRedisFull"
        )
    if counted / limit > _NEARLY_FULL:
        return ServerFinding(
            "memory",
            "warn",
            f"{says}: writes are refused when it is full; docs/runbooks.md, DeltaloomRedisFull",
        )
    return ServerFinding("memory", "ok", says)


def mib(size: int) -> str:
    """Return a number of bytes as text, rounded to whole MiB: `1,234 MiB`, or `0 MiB` for 500 kB."""
    return f"{int(size) / (1 << 20):,.0f} MiB"


def eviction(server: Server) -> ServerFinding:
    """Report whether the server may evict keys when its memory is full.

    The state is `ok` for the policy `noeviction`, else `warn`.
    """
    policy = server.info.get("maxmemory_policy")
    if policy is None:
        return ServerFinding("eviction", "warn", "unknown (INFO is not permitted); it should be noeviction")
    if policy != "noeviction":
        return ServerFinding(
            "eviction",
            "warn",
            f"{policy}: when memory is full the server may evict streams with their groups; "
            "set maxmemory-policy noeviction",
        )
    return ServerFinding(
        "eviction", "ok", "noeviction: when memory is full, writes are refused and nothing is lost"
    )


def persistence(server: Server) -> ServerFinding:
    """Report how much data a crash or a restart of the server loses.

    The state is `ok` with an append-only file, unless `appendfsync` is `no`, and else `warn`.
    """
    append_only = server.info.get("aof_enabled")
    if append_only is None:
        return ServerFinding("durability", "warn", "unknown (INFO is not permitted); set appendonly yes")
    if append_only:
        return ServerFinding("durability", *_DURABILITY[server.config.get("appendfsync", "")])
    if server.config.get("save"):
        return ServerFinding(
            "durability", "warn", "snapshots only: a crash loses all since the last one; set appendonly yes"
        )
    kept = "memory only: a restart loses everything" if "save" in server.config else "no append-only file"
    return ServerFinding("durability", "warn", f"{kept}; set appendonly yes")


def replication(server: Server) -> ServerFinding:
    """Report whether a master has a connected replica, which can take over: `ok` if so, else `warn`."""
    replicas = server.info.get("connected_slaves")
    if replicas is None:
        return ServerFinding(
            "failover", "warn", "unknown (INFO is not permitted); each master should have a replica"
        )
    if not replicas:
        return ServerFinding(
            "failover",
            "warn",
            f"{server.url} has no replica: when it dies, its partitions wait until it is back",
        )
    return ServerFinding("failover", "ok", "each master has a replica, which takes its place when it dies")
