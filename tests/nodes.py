"""Server processes of a group, on free ports of this machine, to be killed, suspended and restarted."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from embedded.free_ports import HOST, free_port
from tests.server import program
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

DURABLE = {"appendonly": "yes", "appendfsync": "always", "save": ""}
"""Options of a node that keeps all acknowledged writes when it is killed."""

PROMPT = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1", "repl-timeout": "5"}
"""Options that make replicas synchronise, and be missed, within seconds."""


class Node:
    """A server with one folder and one port through all its restarts, from the program of the test server."""

    def __init__(self, folder: Path, options: dict[str, str], *arguments: str) -> None:
        self.port = free_port()
        self.folder = folder
        folder.mkdir(parents=True)
        self._command = [program(), *arguments]
        common = {"port": str(self.port), "bind": HOST, "dir": str(folder), "logfile": str(self.log)}
        for name, value in (common | options).items():
            self._command += (f"--{name}", *value.split(" ")) if value else (f"--{name}", "")
        self.connects_with: dict[str, Any] = {}
        """Further arguments of its clients, such as a password or a certificate."""
        self.process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"{self.folder.name} ({self.address})"

    @property
    def log(self) -> Path:
        """Path of its log, in the test's temporary folder, which is kept after a failure."""
        return self.folder / "server.log"

    @property
    def address(self) -> str:
        """Return `host:port`."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Return the URL of the node as a standalone server."""
        return f"redis://{self.address}"

    @property
    def alive(self) -> bool:
        """Return whether its process runs."""
        return self.process is not None and self.process.returncode is None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """Open a client of this node alone, which retries nothing and returns text."""
        client = Redis(
            host=HOST,
            port=self.port,
            socket_timeout=5,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            **self.connects_with,
        )
        async with client:
            yield client

    async def ask(self, *command: str | int) -> Any:
        """Run a command on the node, and return its reply."""
        async with self.client() as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def start(self) -> None:
        """Start the node with its existing data, and wait until it answers."""
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await wait_until(self._answers, 30, message=f"{self!r} answers")

    async def _answers(self) -> bool:
        assert self.alive, f"{self!r} has ended: {self.log.read_text()[-1000:]}"
        try:
            return bool(await self.ask("PING"))
        except RedisError:
            return False

    async def kill(self) -> None:
        """Kill the node, so that it can neither write nor notify other nodes."""
        if self.process is not None:
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()

    def hang(self) -> None:
        """Suspend the node: it answers nothing any more."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume the node."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def running(nodes: Sequence[Node]) -> AsyncIterator[None]:
    """Start all nodes, and kill them at the end of the block."""
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        yield
    finally:
        for node in nodes:
            await node.kill()


async def wait_until_caught_up(master: Node, replicas: Sequence[Node]) -> None:
    """Wait until the replicas have all current data of the master."""
    offset = (await replication_of(master))["master_repl_offset"]

    async def caught_up() -> bool:
        states = [await replication_of(replica) for replica in replicas]
        return all(
            state["role"] == "slave"
            and state["master_link_status"] == "up"
            and state["slave_repl_offset"] >= offset
            for state in states
        )

    await wait_until(caught_up, 30, message=f"{list(replicas)} have what {master!r} has")


async def replication_of(node: Node) -> dict[str, Any]:
    """Return the section `replication` of a node's INFO."""
    async with node.client() as client:
        return dict(await client.info("replication"))
