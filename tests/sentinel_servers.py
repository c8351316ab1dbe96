"""A sentinel group as processes on this machine: a master, its replicas and three sentinels.

async with running_sentinels(tmp_path) as group:
    dead = await group.master()
    await dead.kill()
    await group.wait_until_replaced(dead)
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from embedded.free_ports import HOST
from tests.nodes import DURABLE, PROMPT, Node, running, wait_until_caught_up
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SERVICE = "loom"
"""Name of the master in the sentinels' configuration."""

DOWN_AFTER_MS = 1000
SENTINELS = 3
_QUORUM = 2
_FAILOVER_WITHIN = 60.0


@dataclass(frozen=True)
class Passwords:
    """Passwords of the default users, which servers and sentinels also use among themselves."""

    servers: str
    sentinels: str


@dataclass(frozen=True)
class SentinelGroup:
    """The servers and sentinels of a group.

    The first server begins as master; later the sentinels know it.
    """

    servers: tuple[Node, ...]
    sentinels: tuple[Node, ...]

    @property
    def addresses(self) -> str:
        """Return all sentinels as `host:port,host:port`."""
        return ",".join(node.address for node in self.sentinels)

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """Return host and port of all sentinels."""
        return [(HOST, node.port) for node in self.sentinels]

    @property
    def alive(self) -> list[Node]:
        """Return the running servers."""
        return [node for node in self.servers if node.alive]

    async def master(self) -> Node:
        """Return the master, according to a running sentinel."""
        sentinel = next(node for node in self.sentinels if node.alive)
        _, port = await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        (master,) = [node for node in self.servers if node.port == int(port)]
        return master

    async def wait_until_ok(self) -> None:
        """Wait until the sentinels agree on a running master, and all running servers follow it."""
        await wait_until(self._is_ok, _FAILOVER_WITHIN, message="all follow one master", interval=0.05)

    async def wait_until_replaced(self, dead: Node) -> None:
        """Wait until a replica has replaced a killed master, and all agree on it."""

        async def replaced() -> bool:
            return await self._is_ok() and await self.master() is not dead

        await wait_until(replaced, _FAILOVER_WITHIN, message=f"a replica replaces {dead!r}", interval=0.05)

    async def wait_until_replicated(self) -> None:
        """Wait until each running replica has all data of the master."""
        master = await self.master()
        await wait_until_caught_up(master, [node for node in self.alive if node is not master])

    async def start(self, node: Node) -> None:
        """Start a killed server again as a replica of the current master.

        The sentinels would do that too, but only after the old master has been one again for eight seconds.
        """
        await node.start()
        await node.ask("REPLICAOF", HOST, (await self.master()).port)
        await self.wait_until_ok()

    async def _is_ok(self) -> bool:
        ports = [node.port for node in self.alive]
        try:
            views = [await _seen_by(node) for node in self.sentinels if node.alive]
            master = await self.master()
            roles = {node: await node.ask("ROLE") for node in self.alive}
        except RedisError:
            return False
        return (
            master.alive
            and all(view == (master.port, set(ports) - {master.port}) for view in views)
            and all(_as_it_should(role, node is master, master.port) for node, role in roles.items())
        )


@asynccontextmanager
async def running_sentinels(
    folder: Path, replicas: int = 1, passwords: Passwords | None = None, **options: str
) -> AsyncIterator[SentinelGroup]:
    """Run a master with this number of replicas, and three sentinels.

    `options` are configuration of the servers.

    Raises:
        AssertionError: a process did not start, or they did not form a group.
    """
    settings = DURABLE | PROMPT | {name.replace("_", "-"): value for name, value in options.items()}
    if passwords:
        settings |= {"requirepass": passwords.servers, "masterauth": passwords.servers}
    master = Node(folder / "server-0", settings)
    following = settings | {"replicaof": f"{HOST} {master.port}"}
    servers = (
        master,
        *(Node(folder / f"server-{number}", following) for number in range(1, 1 + replicas)),
    )
    sentinels = tuple(
        _sentinel(folder / f"sentinel-{number}", master, passwords) for number in range(SENTINELS)
    )
    if passwords:
        for node in servers:
            node.connects_with = {"password": passwords.servers}
        for node in sentinels:
            node.connects_with = {"password": passwords.sentinels}
    async with running(servers):
        await wait_until_caught_up(master, servers[1:])
        async with running(sentinels):
            group = SentinelGroup(servers, sentinels)
            await wait_until(lambda: _all_met(sentinels), 30, message="the sentinels know each other")
            await group.wait_until_ok()
            yield group


def _sentinel(folder: Path, master: Node, passwords: Passwords | None) -> Node:
    """Return a sentinel with a configuration file, since sentinels store their state in it."""
    configuration = folder / "sentinel.conf"
    node = Node(folder, {}, str(configuration), "--sentinel")
    lines = [
        f"sentinel monitor {SERVICE} {HOST} {master.port} {_QUORUM}",
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {SERVICE} 5000",
        f"sentinel parallel-syncs {SERVICE} 2",
    ]
    if passwords:
        lines += [
            f"sentinel auth-pass {SERVICE} {passwords.servers}",
            f"requirepass {passwords.sentinels}",
            f"sentinel sentinel-pass {passwords.sentinels}",
        ]
    configuration.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    return node


async def _all_met(sentinels: tuple[Node, ...]) -> bool:
    views = [await node.ask("SENTINEL", "SENTINELS", SERVICE) for node in sentinels]
    return all(len(view) == len(sentinels) - 1 for view in views)


async def _seen_by(sentinel: Node) -> tuple[int, set[int]]:
    """Return the ports of the master and of its healthy replicas, as a sentinel sees them."""
    state: dict[str, Any] = await sentinel.ask("SENTINEL MASTER", SERVICE)
    replicas: list[dict[str, Any]] = await sentinel.ask("SENTINEL SLAVES", SERVICE)
    return state["port"], {
        each["port"] for each in replicas if not each["is_sdown"] and not each["is_disconnected"]
    }


def _as_it_should(role: list[Any], is_master: bool, port: int) -> bool:  # noqa: FBT001 - there is no better name for the argument
    """Return whether a server's ROLE is master, or a replica that is connected to this port."""
    if is_master:
        return bool(role[0] == "master")
    return role[0] == "slave" and (role[2], role[3]) == (port, "connected")
