"""Processes of server, workers and relays: started, killed, suspended and ended by their handles."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from embedded.binary import server_binary
from embedded.free_ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_READY_WITHIN = 60.0
_STOPS_WITHIN = 20.0
_LISTENS_WITHIN = 10.0
"""Seconds after its start in which a process may still end by SIGTERM, before its handler is set."""
_RESTART_AFTER = 0.5


class BenchError(RuntimeError):
    """An error of the bench itself, without a result about the tested program."""


class Server:
    """A durable server: append-only, with each write on disk before the reply, and without eviction."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._binary = server_binary()
        self._process: asyncio.subprocess.Process | None = None
        self._changing = asyncio.Lock()

    def client(self, *, timeout: float = 5.0) -> Redis:
        """Return a client that bypasses the proxy, and never retries a command."""
        return Redis(host=HOST, port=self.port, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))

    async def start(self) -> None:
        """Start the server with its existing data, and wait until it answers.

        Raises:
            BenchError: the server does not start.
        """
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
        """Kill the server with SIGKILL, and start it again after `seconds`."""
        async with self._changing:
            await self.kill()
            await asyncio.sleep(seconds)
            await self.start()

    async def kill(self) -> None:
        """Kill the server with SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@dataclass(slots=True)
class WorkerSlot:
    """A slot for successive processes of one worker."""

    number: int
    environment: Mapping[str, str] = field(default_factory=dict)
    """Settings of its processes beside those of all workers."""
    process: asyncio.subprocess.Process | None = None
    stopped: bool = False
    killed: bool = False
    began: float = 0.0
    """Start time of its process, on the event loop's clock."""

    @property
    def alive(self) -> bool:
        """Return whether its process exists, suspended or not."""
        return self.process is not None and self.process.returncode is None


@dataclass(slots=True)
class Workers:
    """The workers, or the relays, of a run."""

    folder: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    on_death: Callable[[str], None]
    """Called with a message when a process ends that was not killed by the bench."""
    what: str = "worker"
    """Kind of process for messages and names of logs: "worker" or "relay"."""
    slots: list[WorkerSlot] = field(default_factory=list)
    started: int = 0
    _watchers: set[asyncio.Task[None]] = field(default_factory=set)
    _ending: bool = False

    async def start(self, slot: WorkerSlot) -> None:
        """Start a worker in an empty slot."""
        if slot.alive:
            return
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DELTALOOM_")}
        with (self.folder / f"{self.what}-{slot.number}.log").open("ab") as log:
            slot.process = await asyncio.create_subprocess_exec(
                *self.command,
                env={**environment, **self.environment, **slot.environment},
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
        """Kill a worker with SIGKILL; return its process id, or None if no process ran."""
        if slot.process is None or slot.process.returncode is not None:
            return None
        slot.killed = True
        slot.process.kill()
        await slot.process.wait()
        return slot.process.pid

    def stop(self, slot: WorkerSlot) -> bool:
        """Suspend a worker with SIGSTOP; return False if none runs, or it is suspended already."""
        if slot.process is None or slot.process.returncode is not None or slot.stopped:
            return False
        slot.process.send_signal(signal.SIGSTOP)
        slot.stopped = True
        return True

    def go_on(self, slot: WorkerSlot, process: asyncio.subprocess.Process | None) -> None:
        """Resume a worker with SIGCONT if the slot still has this process."""
        if process is not None and slot.process is process and process.returncode is None:
            process.send_signal(signal.SIGCONT)
            slot.stopped = False

    async def end(self) -> list[str]:
        """Stop all processes with SIGTERM, and return descriptions of those that did not end well."""
        self._ending = True
        signalled_at = asyncio.get_running_loop().time()
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
                has_no_handler = signalled_at - slot.began < _LISTENS_WITHIN
                if code not in {0, -signal.SIGKILL} and not (has_no_handler and code == -signal.SIGTERM):
                    wrong.append(f"{self.what} {slot.number} ended with exit code {code} after SIGTERM")
        return wrong

    async def kill_all(self) -> None:
        """Kill all processes."""
        self._ending = True
        for task in list(self._watchers):
            task.cancel()
        for slot in self.slots:
            await self.kill(slot)


RELAY_COMMAND = (sys.executable, "-m", "service", "relay")


def worker_command(sabotage: str | None) -> tuple[str, ...]:
    """Return the command that starts a worker, without a safeguard if `sabotage` names one."""
    if sabotage is None:
        return (sys.executable, "-m", "service", "worker")
    return (sys.executable, "-m", "chaos.sabotaged_worker", sabotage)
