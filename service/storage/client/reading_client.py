"""Clients that read for FastStream. They wait while the server is unavailable, and recreate a missing group.

With a client of its own FastStream would log a traceback for each attempt, and stop for good if the group is
missing.

Theory of operation:

1. FastStream sends XREADGROUP. The client replaces it by smaller reads in a pipeline, fewer if the latest
   batch was small. The first read blocks, the others return the entries that are there by then.
2. Each reply is added to the batch as soon as it has come, while the server prepares the next one. The
   replies are so small that their entries and decoded events fit into the processor's cache.
3. FastStream receives the whole batch as if it were a single entry.
4. If the pipeline fails without a reply, the client sends a single read and retries it until it succeeds.
5. A read counts as in progress until FastStream asks for the next batch: see `reads.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from redis import exceptions
from redis.asyncio import Redis

from handlers.core.identity import EntryId
from service import logs
from service.ports.storage import StorageUnavailableError
from service.storage.client.availability import unavailable_if_away
from service.storage.client.cluster import Cluster
from service.storage.client.sentinel import Master

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from service.ports.storage import RawEntry
    from service.retrying import RetryUntilAvailable
    from service.storage.client.reads import Reads


BATCH_BYTES = 2 * 1024 * 1024
"""Approximate maximum bytes of a batch: with large entries (arrays of events) it has fewer of them."""

ENTRIES_AT_ONCE, _BYTES_AT_ONCE = 500, 192 * 1024
"""Maximum entries of one reply, and their approximate maximum bytes, so that they and the data decoded from
them fit into the processor's cache."""

_PAUSES = (0, 0.05, 0.2, 0.8)
"""Seconds before each retry after a lost connection to a cluster. A lost connection is common; only a failure
for about a second means that the cluster is unavailable."""

_SAMPLE = 16
"""Approximate number of entries in a sample of entry sizes."""


class GroupCreator(Protocol):
    """A consumer group that can be created."""

    async def ensure(self) -> None:
        """Create the group, unless it exists."""
        ...


class Collector(Protocol):
    """A batch under construction."""

    def extend(self, entries: Sequence[RawEntry], /) -> None:
        """Add entries in the order of their ids."""
        ...


class Input(NamedTuple):
    """An input stream and the means to read it."""

    group: GroupCreator
    retrying: RetryUntilAvailable
    new_batch: Callable[[], Collector] = list
    entries_at_most: Callable[[], int | None] = lambda: None
    """Return the maximum entries of the next batch, or None for no limit but the configured one."""


class Patient:
    """The reading behaviour shared by the clients of all modes."""

    inputs: Mapping[str, Input]
    """The inputs by the names of their streams."""
    latest: dict[str, _Latest]
    """The sizes of the latest read by stream; no item before the first read."""
    reads: Reads
    """The reads in progress; a read ends when FastStream asks for the next batch of the stream."""

    _in_pipelines: ClassVar[dict[str, bool]] = {}
    """Options for the execution of a pipeline."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Read a batch as soon as the server can, and return it as a single entry.

        Otherwise FastStream would process each entry, and redis-py create a dictionary for each. Commands
        other than XREADGROUP are not sent: FastStream's ping would wait for another partition's server, and
        its XGROUP CREATE would begin at the end of the stream, while the group exists already.
        """
        if args[0] != "XREADGROUP":
            return True
        stream = next(arg for arg in args if arg in self.inputs)
        self.reads.end(stream)
        latest = self.latest.get(stream, _NOTHING)
        # Create the batch before the read, so that it records a replication id from before its first entry.
        options["taken"] = taken = ReadBatch(self.inputs[stream].new_batch(), latest.entry_bytes)
        commands = _commands(args, latest, self.inputs[stream].entries_at_most())
        with logs.bound(stream=stream):
            if len(commands) == 1 or not await self._read_at_once(stream, commands, options):
                await self.inputs[stream].retrying.call(self._read, stream, commands[0], options)
        self.latest[stream] = _Latest(taken.entries, taken.entry_bytes)
        return [(stream.encode(), [(taken.last_id, taken.batch)])] if taken.entries else []

    async def _read(self, stream: str, command: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Read one reply.

        Raises:
            StorageUnavailableError: retry the read.
        """
        async with self._under_way(stream, options["taken"]):
            try:
                with unavailable_if_away():
                    await self._ask(command, options)
            except exceptions.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
            else:
                return
        await self.inputs[stream].group.ensure()
        raise StorageUnavailableError("NOGROUP", "the consumer group was missing and has been created again")

    async def _ask(self, command: tuple[Any, ...], options: dict[str, Any]) -> None:
        await super().execute_command(*command, **options)  # type: ignore[misc]  # the client's

    async def _read_at_once(
        self, stream: str, commands: list[tuple[Any, ...]], options: dict[str, Any]
    ) -> bool:
        """Read several replies; return False if an error came before any entry.

        The error itself is dropped, because the next read meets it again and handles it.
        """
        taken: ReadBatch = options["taken"]
        pipeline = self.pipeline(transaction=False)  # type: ignore[attr-defined]  # the client's
        for command in commands:
            pipeline.execute_command(*command, **options)
        async with self._under_way(stream, taken):
            try:
                with unavailable_if_away():
                    await pipeline.execute(**self._in_pipelines)
            except (exceptions.RedisError, StorageUnavailableError):
                return taken.entries > 0
        return True

    @asynccontextmanager
    async def _under_way(self, stream: str, taken: ReadBatch) -> AsyncIterator[None]:
        """Register a read; unregister it at once if it has brought no entries."""
        await self.reads.begin(stream)
        try:
            yield
        finally:
            if not taken.entries:
                self.reads.end(stream)


class _Latest(NamedTuple):
    """The size of the latest read of a stream."""

    entries: int = 0
    entry_bytes: int = 1
    """Approximate bytes of an entry."""


_NOTHING = _Latest()


@dataclass(slots=True)
class ReadBatch:
    """The entries that a read has brought so far."""

    batch: Collector
    entry_bytes: int
    """Approximate bytes of an entry in the latest reply, which may be one of the previous read."""
    entries: int = 0
    last_id: bytes = b"0-0"

    def add(self, entries: Sequence[RawEntry]) -> None:
        """Add a reply's entries with ids above those of the entries so far.

        A group that is recreated between two replies begins at the start of the stream. A batch must have its
        entries in order and once, so the others are left out; they stay pending and are claimed later.
        """
        if _order(entries[0][0]) <= _order(self.last_id):
            entries = [entry for entry in entries if _order(entry[0]) > _order(self.last_id)]
        if entries:
            self.batch.extend(entries)
            self.entries += len(entries)
            self.last_id, self.entry_bytes = entries[-1][0], _size(entries)


def _order(entry_id: bytes) -> EntryId:
    return EntryId.parse(entry_id.decode())


def _commands(
    args: tuple[Any, ...], latest: _Latest, entries_at_most: int | None = None
) -> list[tuple[Any, ...]]:
    """Return the commands of a read: the first one blocks, the others return what is there by then.

    Each requests as many entries as fit into the processor's cache, and all together twice as many as the
    latest read has brought, so that the server prepares the next reply while one is processed.
    """
    at, block = args.index(b"COUNT") + 1, args.index(b"BLOCK")
    count = max(1, min(int(args[at]), BATCH_BYTES // latest.entry_bytes, entries_at_most or int(args[at])))
    at_once = max(1, min(count, ENTRIES_AT_ONCE, _BYTES_AT_ONCE // latest.entry_bytes))
    first = (*args[:at], at_once, *args[at + 1 :])
    times = max(1, min(count, 2 * latest.entries) // at_once)
    return [first, *[(*first[:block], *first[block + 2 :])] * (times - 1)]


def gather(reply: Any, *, taken: ReadBatch, **_options: Any) -> None:
    """Add a reply's entries to the batch; redis-py calls this as soon as the reply is complete."""
    streams = reply.items() if isinstance(reply, dict) else reply or ()
    for _, entries in streams:
        if entries:
            taken.add(entries)


def _size(entries: Sequence[RawEntry]) -> int:
    """Return the approximate bytes of an entry: 1 plus the mean of a sample spread over the entries."""
    some = entries[:: max(1, len(entries) // _SAMPLE)]
    return 1 + sum(len(value) for _, fields in some for value in fields) // len(some)


class ReadingRedis(Patient, Redis):  # type: ignore[misc]  # redis-py's own bases disagree
    """A reading client of a single server."""


class ReadingMaster(Patient, Master):  # type: ignore[misc]  # redis-py's own bases disagree
    """A reading client of the master behind sentinels."""


class ReadingCluster(Patient, Cluster):  # type: ignore[misc]  # redis-py's own bases disagree
    """A reading client of a cluster."""

    # A redirected command would call `execute_command` again; instead, the next read follows the redirection.
    _in_pipelines: ClassVar[dict[str, bool]] = {"allow_redirections": False}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._closing = asyncio.Lock()
        self._times_closed = 0

    async def _ask(self, command: tuple[Any, ...], options: dict[str, Any]) -> None:
        for pause in _PAUSES:
            async with self._closing:
                times_closed = self._times_closed
            with contextlib.suppress(exceptions.ConnectionError):
                return await super()._ask(command, options)
            # The other connections may be lost too, and the slot map may be outdated, so close them all. If
            # another read has done that meanwhile, the connections are new and in use by other reads.
            async with self._closing:
                if times_closed == self._times_closed:
                    await self.aclose()
                    self._times_closed += 1
            await asyncio.sleep(pause)
        return await super()._ask(command, options)
