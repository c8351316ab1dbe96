"""What processes and server say of themselves: memory, slow commands, bytes of keys."""

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
    """Return the most bytes of memory that a process has had; where that is not told, what it has now."""
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
    """Looks at the memory of all processes, and kills one that takes the machine's.

    Args:
        processes: workers and relays.
        violate: is told what is wrong: the kind, and an example.
    """

    def __init__(self, processes: Sequence[Workers], violate: Callable[[str, str], None]) -> None:
        self._processes = processes
        self._violate = violate
        self.peaks: dict[str, int] = {}
        """Bytes, by kind of process: the most that one of them has had."""
        self.too_much = asyncio.Event()
        """One had to be killed: the run is over."""
        self._named: set[int] = set()

    async def follow(self) -> None:
        """Look until cancelled."""
        while True:
            for processes in self._processes:
                for slot in processes.slots:
                    if slot.process is not None and slot.alive:
                        await self._look(processes, slot)
            await asyncio.sleep(_EVERY)

    async def _look(self, processes: Workers, slot: Any) -> None:
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
    """A server whose clients of the bench have a name, by which its own slow commands are told apart."""

    def client(self, *, timeout: float = 60.0) -> Redis:
        """Return a client, named."""
        client = super().client(timeout=timeout)
        client.connection_pool.connection_kwargs["client_name"] = _BENCH
        return client


class SlowCommands(NamedTuple):
    """Commands that took the server long: how many, and the longest of each name in milliseconds."""

    ours: dict[str, float]
    hostile: dict[str, float]


async def begin_slow_log(server: Server) -> None:
    """Have the server note commands that take long."""
    async with server.client() as client:
        await client.config_set("slowlog-log-slower-than", limits.SLOW_COMMAND_MS * 1000)
        await client.config_set("slowlog-max-len", _SLOWEST_KEPT)
        # Nothing is killed here. To write its file anew would take the server a third of the machine's time.
        await client.config_set("appendfsync", "everysec")
        await client.config_set("auto-aof-rewrite-percentage", 0)
        await client.slowlog_reset()


async def slow_commands(server: Server) -> SlowCommands:
    """Return them, without their arguments: those hold texts. Those of the bench itself are left out."""
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
    """Return the name of a command; of a script of ours, which one it is."""
    words = command.split(b" ", 2)
    name = words[0].decode("ascii", "replace")
    script = _scripts().get(words[1].decode("ascii", "replace")) if len(words) > 1 else None
    return f"{name} {script}" if script else name


@cache
def _scripts() -> dict[str, str]:
    """Return the scripts' names by the digests that they are called by."""
    names = [file.name.removesuffix(".lua") for file in FOLDER.iterdir() if file.name.endswith(".lua")]
    return {
        sha1(source(name).encode(), usedforsecurity=False).hexdigest(): f"{name}.lua"
        for name in names
        if name != "prelude"
    }


async def key_bytes(server: Server, names: StreamNames) -> Counter[str]:
    """Return the bytes of keys that bear a hostile id, by generator."""
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
