"""What a server says of itself: whether it is one for the worker, and what it promises.

Managed servers forbid INFO or CONFIG to their users. What may not be asked is unknown, and no failure.
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

_DURABILITY: dict[str, tuple[State, str]] = {
    "always": ("ok", "append-only file, written to disk before each answer: nothing acknowledged is lost"),
    "everysec": (
        "ok",
        "append-only file, written to disk every second: a crash of the machine loses about a second",
    ),
    "no": (
        "warn",
        "append-only file, written to disk when the system likes: a crash of the machine loses about 30 s",
    ),
    "": ("ok", "append-only file; how often it is written to disk may not be asked (CONFIG GET appendfsync)"),
}


class Finding(NamedTuple):
    """The answer to one question."""

    what: str
    state: State
    says: str


class Server(NamedTuple):
    """What a server says of itself; empty if it may not be asked."""

    url: str
    info: Mapping[str, Any]
    config: Mapping[str, str]
    away: bool = False
    """It does not answer: one master of a cluster, whose others do."""


async def ask(client: Redis, url: str) -> list[Server]:
    """Ask the server, or every master of a cluster; `url` is what it is called in what is found."""
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
        info = await _allowed(lambda: client.info(**where))
        config = await _allowed(lambda: client.config_get("save", "appendfsync", **where))
    return Server(url, info, config)


def assess(servers: Sequence[Server]) -> list[Finding]:
    """What can be said of them: of each question the worst answer, and how many there are of it."""
    questions: list[Callable[[Server], Finding]] = [eviction, persistence]
    if servers[1:]:
        questions.append(replication)
    answering = [server for server in servers if not server.away]
    found = [[question(server) for server in answering] for question in questions if answering]
    return [_worst(findings) for findings in ([reached(server) for server in servers], *found)]


def _worst(findings: Sequence[Finding]) -> Finding:
    worst = max(findings, key=lambda finding: _STATES.index(finding.state))
    if not findings[1:]:
        return worst
    alike = sum(finding.state == worst.state for finding in findings)
    return worst._replace(says=f"{worst.says} ({alike} of {len(findings)} masters)")


async def _allowed(ask: Callable[[], Awaitable[Mapping[Any, Any]]]) -> Mapping[str, Any]:
    try:
        return await ask()
    except ResponseError:  # NOPERM, or an unknown command
        return {}


def reached(server: Server) -> Finding:
    """Which server it is, and whether it is one that the worker can use."""
    if server.away:
        return Finding("server", "warn", f"{server.url} does not answer: its partitions wait until it does")
    if not server.info:
        return Finding("server", "ok", f"{server.url} answers; its version may not be asked (INFO)")
    name = "Valkey" if "valkey_version" in server.info else "Redis"
    version = str(server.info.get(f"{name.lower()}_version", "0"))
    says = f"{name} {version} at {server.url}"
    oldest = OLDEST[name]
    if tuple(int(n) for n in version.split(".")[:2] if n.isdecimal()) < oldest:
        return Finding(
            "server", "fail", f"{says} is too old: {name} {oldest[0]}.{oldest[1]} or later is needed"
        )
    if server.info.get("role") == "slave":
        return Finding(
            "server", "fail", f"{says} is a replica and takes no writes: name the primary in REDIS_URL"
        )
    return Finding("server", "ok", says)


def eviction(server: Server) -> Finding:
    """Whether the server may throw away keys when it is full."""
    policy = server.info.get("maxmemory_policy")
    if policy is None:
        return Finding("eviction", "warn", "unknown (INFO may not be asked); it should be noeviction")
    if policy != "noeviction":
        return Finding(
            "eviction",
            "warn",
            f"{policy}: when memory is full the server may throw away streams with their groups; "
            "set maxmemory-policy noeviction",
        )
    return Finding(
        "eviction", "ok", "noeviction: when memory is full, writes are refused and nothing is lost"
    )


def persistence(server: Server) -> Finding:
    """What is lost when the server crashes or is restarted."""
    append_only = server.info.get("aof_enabled")
    if append_only is None:
        return Finding("durability", "warn", "unknown (INFO may not be asked); set appendonly yes")
    if append_only:
        return Finding("durability", *_DURABILITY[server.config.get("appendfsync", "")])
    if server.config.get("save"):
        return Finding(
            "durability", "warn", "snapshots only: a crash loses all since the last one; set appendonly yes"
        )
    kept = "memory only: a restart loses everything" if "save" in server.config else "no append-only file"
    return Finding("durability", "warn", f"{kept}; set appendonly yes")


def replication(server: Server) -> Finding:
    """What happens to a master's partitions when it dies."""
    replicas = server.info.get("connected_slaves")
    if replicas is None:
        return Finding(
            "failover", "warn", "unknown (INFO may not be asked); each master should have a replica"
        )
    if not replicas:
        return Finding(
            "failover",
            "warn",
            f"{server.url} has no replica: when it dies, its partitions wait until it is back",
        )
    return Finding("failover", "ok", "each master has a replica, which takes its place when it dies")
