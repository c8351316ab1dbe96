"""What `deltaloom check` looks at: a function a question, answered with ok, warn or fail and a sentence.

Managed servers forbid INFO or CONFIG to their users. What may not be asked is unknown, and no failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from redis.exceptions import ResponseError

from deltaloom.streams import GROUP, StreamNames
from service.cli.connection import address, connect
from service.cli.errors import CommandError, explanation
from service.cli.output import plural

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from service.settings import Settings

State = Literal["ok", "warn", "fail"]

OLDEST = {"Redis": (7, 0), "Valkey": (7, 2)}
OWNERS = {"service": "deltaloom-worker", "handlers": "deltaloom-worker", "deltaloom": "deltaloom"}

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


async def found(settings: Settings) -> list[Finding]:
    """All findings; those about the server end with the first if there is none."""
    here = [handlers(settings), import_names(metadata.packages_distributions())]
    try:
        async with connect(settings) as client:
            info = await _allowed(client.info)
            config = await _allowed(lambda: client.config_get("save", "appendfsync"))
            server = Server(address(settings.redis_url), info, config)
            return [
                reached(server),
                eviction(server),
                persistence(server),
                await group(client, StreamNames(settings.prefix)),
                *here,
            ]
    except CommandError as error:
        return [Finding("server", "fail", str(error)), *here]


async def _allowed(ask: Callable[[], Awaitable[Mapping[Any, Any]]]) -> Mapping[str, Any]:
    try:
        return await ask()
    except ResponseError:  # NOPERM, or an unknown command
        return {}


def reached(server: Server) -> Finding:
    """Which server it is, and whether it is one that the worker can use."""
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


async def group(client: Redis, names: StreamNames) -> Finding:
    """How far the workers are."""
    try:
        groups = await client.xinfo_groups(names.deltas)
        mine = next((group for group in groups if group["name"] == GROUP.encode()), None)
        letters = int(await client.xlen(names.dead_letters))
    except ResponseError as error:
        if "no such key" not in str(error):
            return Finding(
                "workers", "fail" if "WRONGTYPE" in str(error) else "warn", f"{names.deltas}: {error}"
            )
        mine, letters = None, 0
    if mine is None:
        return Finding(
            "workers", "warn", f"no worker has read {names.deltas} yet; the first one makes the group"
        )
    lag = "unknown" if mine["lag"] is None else f"{mine['lag']:,}"
    says = f"{plural(mine['consumers'], 'consumer')}, {mine['pending']:,} pending, lag {lag}"
    if letters:
        return Finding(
            "workers", "warn", f"{says}, {plural(letters, 'dead letter')} (deltaloom dead-letters list)"
        )
    return Finding("workers", "ok", says)


def handlers(settings: Settings) -> Finding:
    """Which handlers are on."""
    from service.app import routing_table

    try:
        table = routing_table(settings)
    except ValueError as error:
        told = explanation(error)
        if told is None:
            raise
        return Finding("handlers", "fail", told.lines[0])
    return Finding("handlers", "ok", ", ".join(handler.name for handler in table.handlers))


def import_names(owners: Mapping[str, list[str]]) -> Finding:
    """Whether another distribution has put something into our packages, or its package in place of ours."""
    foreign = {
        name: sorted(set(owners.get(name, ())) - {owner})
        for name, owner in OWNERS.items()
        if set(owners.get(name, ())) - {owner}
    }
    if foreign:
        whose = "; ".join(f"{name} is also of {', '.join(others)}" for name, others in foreign.items())
        return Finding("import names", "warn", f"{whose}: use an environment of its own for deltaloom-worker")
    return Finding("import names", "ok", f"{', '.join(OWNERS)} belong to deltaloom alone")
