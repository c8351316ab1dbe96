"""Measurements of processes and server: memory, slow commands, bytes of keys."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from chaos.processes import Server
from hostile import limits
from hostile.attacker import CLIENT
from hostile.entry import generator_of
from service.storage.scripts import FOLDER, source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from chaos.processes import Workers
    from deltaloom import StreamNames

_EVERY = 0.2
_SLOWEST_KEPT = 10_000
_PAGE = 1000
_BENCH = "hostile-bench"
_BENCH_CLIENTS = ("chaos-producer", _BENCH)


def peak_memory(pid: int) -> int:
    """Return a process's peak memory in bytes, or its current memory if the peak is not available."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        status = ""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


class MemoryWatch:
    """A watch over the memory of all processes, which kills one that uses far too much.

    Args:
        processes: workers and relays.
        violate: called for each violation with its kind and an example.
    """

    def __init__(self, processes: Sequence[Workers], violate: Callable[[str, str], None]) -> None:
        self._processes = processes
        self._violate = violate
        self.peaks: dict[str, int] = {}
        """Peak memory of a process in bytes, by kind of process."""
        self.too_much = asyncio.Event()
        """Set when a process had to be killed, so that the run is over."""
        self._named: set[int] = set()

    async def follow(self) -> None:
        """Check repeatedly until cancelled."""
        while True:
            for processes in self._processes:
                for slot in processes.slots:
                    if slot.process is not None and slot.alive:
                        await self._check(processes, slot)
            await asyncio.sleep(_EVERY)

    async def _check(self, processes: Workers, slot: Any) -> None:
        pid = slot.process.pid
        peak = peak_memory(pid)
        name = processes.what.partition("-")[0]
        self.peaks[name] = max(peak, self.peaks.get(name, 0))
        if peak > limits.MEMORY and pid not in self._named:
            self._named.add(pid)
            at_most = f"at most {limits.MEMORY / 2**20:.0f} MiB"
            self._violate(
                "memory", f"{processes.what} {slot.number} has had {peak / 2**20:.0f} MiB; {at_most}"
            )
        if peak > limits.MEMORY_ENDS:
            self.too_much.set()
            await processes.kill(slot)


class NamedServer(Server):
    """A server that names the bench's own clients, so that their slow commands can be ignored."""

    def client(self, *, timeout: float = 60.0) -> Redis:
        """Return a client with the bench's name."""
        client = super().client(timeout=timeout)
        client.connection_pool.connection_kwargs["client_name"] = _BENCH
        return client


class SlowCommands(NamedTuple):
    """The longest time of each slow command, in milliseconds, by the command's name."""

    ours: dict[str, float]
    hostile: dict[str, float]


async def begin_slow_log(server: Server) -> None:
    """Have the server log slow commands."""
    async with server.client() as client:
        await client.config_set("slowlog-log-slower-than", limits.SLOW_COMMAND_MS * 1000)
        await client.config_set("slowlog-max-len", _SLOWEST_KEPT)
        # No process is killed, so that fsync is not tested; rewriting the file would use a third of the
        # machine's time.
        await client.config_set("appendfsync", "everysec")
        await client.config_set("auto-aof-rewrite-percentage", 0)
        await client.slowlog_reset()


async def slow_commands(server: Server) -> SlowCommands:
    """Return the slow commands without those of the bench, and without arguments, which contain texts."""
    found = SlowCommands({}, {})
    async with server.client() as client:
        entries: Any = await client.slowlog_get(_SLOWEST_KEPT)
    for entry in entries:
        who = bytes(entry.get("client_name", b"")).decode()
        if who.startswith(_BENCH_CLIENTS):
            continue
        group = found.hostile if who.startswith(CLIENT) else found.ours
        name = _named(entry["command"])
        group[name] = max(entry["duration"] / 1000, group.get(name, 0.0))
    return found


def _named(command: bytes) -> str:
    """Return the name of a command, with the name of the script if it calls one of ours."""
    words = command.split(b" ", 2)
    name = words[0].decode("ascii", "replace")
    script = _scripts().get(words[1].decode("ascii", "replace")) if len(words) > 1 else None
    return f"{name} {script}" if script else name


@cache
def _scripts() -> dict[str, str]:
    """Return the scripts' names by digest."""
    names = [file.name.removesuffix(".lua") for file in FOLDER.iterdir() if file.name.endswith(".lua")]
    return {
        sha1(source(name).encode(), usedforsecurity=False).hexdigest(): f"{name}.lua"
        for name in names
        if name != "prelude"
    }


async def key_bytes(server: Server, names: StreamNames) -> Counter[str]:
    """Return the bytes of keys with a hostile id, by generator."""
    sizes: Counter[str] = Counter()
    async with server.client() as client:
        cursor = 0
        while True:
            found: Any = await client.scan(cursor, match=f"{names.prefix}*h.*", count=_PAGE)
            cursor, page = found
            pipeline = client.pipeline(transaction=False)
            owners = []
            for key in page:
                name = key.decode("utf-8", "replace")
                owner = generator_of(name[name.index(":h.") + 1 :]) if ":h." in name else None
                if owner is not None:
                    owners.append(owner)
                    pipeline.memory_usage(key, samples=0)
            for owner, size in zip(owners, await pipeline.execute(), strict=True):
                sizes[owner] += size or 0
            if cursor == 0:
                return sizes
