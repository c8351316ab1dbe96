"""The server that all competitors use in turn: emptied before each run, filled quickly, and observed."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from redis import Redis

from bench.errors import BenchError
from deltaloom.streams import GROUP, StreamNames
from embedded.embedded_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_SETTLED_WITHIN = 10.0


class State(NamedTuple):
    """The progress of a competitor."""

    read: int
    """Number of delivered entries."""
    lag: int | None
    """Number of entries that are not delivered yet; None if the server does not know."""
    pending: int
    """Number of entries that are delivered but not acknowledged."""
    texts: int
    alerts: int

    @property
    def drained(self) -> bool:
        """Return whether all entries are acknowledged."""
        return self.lag == 0 and self.pending == 0


class Ground:
    """The server of a run, with the names that all competitors use on it."""

    def __init__(self, url: str, prefix: str, *, owned: bool) -> None:
        self.url = url
        self.names = StreamNames(prefix)
        self._owned = owned
        self.preloaded = self.names.name("preloaded")
        self.client = Redis.from_url(url, socket_timeout=60)

    def clear(self) -> None:
        """Delete all keys, or on an existing server only those with the bench's prefix."""
        if self._owned:
            self.client.flushall()
            return
        for key in self.client.scan_iter(match=f"{self.names.name('*')}", count=1000):
            self.client.unlink(key)

    def make_group(self, stream: str) -> None:
        """Create the workers' group at the beginning of a stream."""
        self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)

    def send(self, chunks: Iterable[bytes]) -> None:
        """Send prepared commands to the server; one chunk is always in flight."""
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
        """Return the group's progress and the numbers of outputs, in one round trip."""
        pipeline = self.client.pipeline(transaction=False)
        pipeline.xinfo_groups(self.names.deltas)
        pipeline.xlen(self.names.assembled)
        pipeline.xlen(self.names.alerts)
        (group, *_), texts, alerts = pipeline.execute()
        return State(group["entries-read"] or 0, group["lag"], group["pending"], texts, alerts)

    def reading(self) -> int:
        """Return the number of clients that wait for entries of the input."""
        if not self.client.xinfo_consumers(self.names.deltas, GROUP):
            return 0
        waiting: Sequence[Mapping[str, Any]] = self.client.client_list()
        return sum(1 for each in waiting if each["cmd"] == "xreadgroup" and "b" in each["flags"])

    def cpu_seconds(self) -> float:
        """Return the processor time that the server has used, in seconds."""
        info: Mapping[str, Any] = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def commands(self) -> int:
        """Return the number of commands that the server has executed, those in scripts included."""
        stats: Mapping[str, Mapping[str, Any]] = self.client.info("commandstats")
        return sum(int(each["calls"]) for each in stats.values())

    def connections(self) -> int:
        """Return the number of connections to the server."""
        return len(self.client.client_list())

    def memory(self) -> int:
        """Return the server's memory without its clients' buffers, in bytes."""
        info: Mapping[str, Any] = self.client.info("memory")
        return int(info["used_memory"]) - int(info["mem_clients_normal"])

    def settled_memory(self) -> int:
        """Return the same when it is stable within a thousandth, since keys are freed in the background."""
        deadline = time.monotonic() + _SETTLED_WITHIN
        before = self.memory()
        while True:
            time.sleep(0.25)
            now = self.memory()
            if abs(now - before) <= before / 1000 or time.monotonic() > deadline:
                return now
            before = now

    def memory_of_keys(self) -> int:
        """Return the bytes allocated for all keys and values, and for the tables that index them.

        Other memory is not included: the heap of the scripts, for example, varies by itself.
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
        """Return name and version of the server."""
        info: Mapping[str, Any] = self.client.info("server")
        name, key = ("Valkey", "valkey_version") if "valkey_version" in info else ("Redis", "redis_version")
        return f"{name} {info[key]}"


@contextmanager
def ground(url: str | None) -> Iterator[Ground]:
    """Yield the server at a URL, or an embedded one that keeps its data in memory only."""
    if url is not None:
        yield Ground(url, "deltaloom-bench", owned=False)
        return
    with EmbeddedServer(protected=False) as server:
        yield Ground(server.url, "deltaloom", owned=True)


def wait(condition: Callable[[], bool], seconds: float, what: str, *, every: float = 0.005) -> None:
    """Poll until a condition is true.

    Raises:
        BenchError: it was not true in time; the message has `what`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {seconds:g} s: {what}")
        time.sleep(every)
