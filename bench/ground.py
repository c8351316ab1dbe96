"""The server that all run on, in turn: emptied before each, filled as fast as it can be, and asked."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from redis import Redis

from deltaloom.streams import GROUP, StreamNames
from service.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_SETTLED_WITHIN = 10.0


class BenchError(RuntimeError):
    """The bench could not do what it wanted; says nothing of what it measures."""


class State(NamedTuple):
    """How far a competitor has come."""

    read: int
    """Entries delivered."""
    lag: int | None
    """Entries not delivered yet; None: the server does not know."""
    pending: int
    """Entries delivered and not acknowledged."""
    texts: int
    alerts: int

    @property
    def drained(self) -> bool:
        """Whether all is acknowledged."""
        return self.lag == 0 and self.pending == 0


class Ground:
    """One server, and the names under which everybody works on it."""

    def __init__(self, url: str, prefix: str, *, owned: bool) -> None:
        self.url = url
        self.names = StreamNames(prefix)
        self._owned = owned
        self.preloaded = self.names.name("preloaded")
        self.client = Redis.from_url(url, socket_timeout=60)

    def clear(self) -> None:
        """Remove everything; on a server that was given, what is under the bench's prefix."""
        if self._owned:
            self.client.flushall()
            return
        for key in self.client.scan_iter(match=f"{self.names.name('*')}", count=1000):
            self.client.unlink(key)

    def make_group(self, stream: str) -> None:
        """The workers' group, from the beginning."""
        self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)

    def send(self, chunks: Iterable[bytes]) -> None:
        """Have the server do commands that were written before; one chunk is always under way."""
        connection: Any = self.client.connection_pool.get_connection()
        try:
            before = 0
            for chunk in chunks:
                connection.send_packed_command([chunk])
                for _ in range(before):
                    connection.read_response()
                before = chunk.count(b"\r\nXADD\r\n")
            for _ in range(before):
                connection.read_response()
        finally:
            self.client.connection_pool.release(connection)

    def state(self) -> State:
        """How far the group has come, and what is out; in one round trip."""
        pipeline = self.client.pipeline(transaction=False)
        pipeline.xinfo_groups(self.names.deltas)
        pipeline.xlen(self.names.assembled)
        pipeline.xlen(self.names.alerts)
        (group, *_), texts, alerts = pipeline.execute()
        return State(group["entries-read"] or 0, group["lag"], group["pending"], texts, alerts)

    def reading(self) -> int:
        """Clients that wait for entries of the input."""
        if not self.client.xinfo_consumers(self.names.deltas, GROUP):
            return 0
        waiting: Sequence[Mapping[str, Any]] = self.client.client_list()
        return sum(1 for each in waiting if each["cmd"] == "xreadgroup" and "b" in each["flags"])

    def cpu_seconds(self) -> float:
        """Processor time that the server has used."""
        info: Mapping[str, Any] = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def memory(self) -> int:
        """Bytes the server uses, but for its clients' buffers."""
        info: Mapping[str, Any] = self.client.info("memory")
        return int(info["used_memory"]) - int(info["mem_clients_normal"])

    def settled_memory(self) -> int:
        """The same, once it changes by no more than a thousandth: keys are freed in the background."""
        deadline = time.monotonic() + _SETTLED_WITHIN
        before = self.memory()
        while True:
            time.sleep(0.25)
            now = self.memory()
            if abs(now - before) <= before / 1000 or time.monotonic() > deadline:
                return now
            before = now

    def memory_of_keys(self) -> int:
        """Bytes of all keys and their values, as they are allocated, and of the tables that lead to them.

        Not what else the server has: the heap of its scripts grows and shrinks as it likes.
        """
        pipeline = self.client.pipeline(transaction=False)
        for key in self.client.scan_iter(match=self.names.name("*"), count=1000):
            pipeline.memory_usage(key, samples=0)
        keys = sum(pipeline.execute())
        stats: Mapping[str, Any] = self.client.memory_stats()
        tables = stats.get("overhead.db.hashtable.lut")
        if tables is None:  # Redis 7
            tables = sum(sum(each.values()) for name, each in stats.items() if name.startswith("db."))
        return int(keys + tables)

    def describe(self) -> str:
        """Name and version."""
        info: Mapping[str, Any] = self.client.info("server")
        name, key = ("Valkey", "valkey_version") if "valkey_version" in info else ("Redis", "redis_version")
        return f"{name} {info[key]}"


@contextmanager
def ground(url: str | None) -> Iterator[Ground]:
    """The server at an address; without one, our own, in memory only."""
    if url is not None:
        yield Ground(url, "deltaloom-bench", owned=False)
        return
    with EmbeddedServer(protected=False) as server:
        yield Ground(server.url, "deltaloom", owned=True)


def wait(condition: Callable[[], bool], seconds: float, what: str, *, every: float = 0.005) -> None:
    """Ask again and again until it is so.

    Raises:
        BenchError: it was not so in time; says what.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {seconds:g} s: {what}")
        time.sleep(every)
