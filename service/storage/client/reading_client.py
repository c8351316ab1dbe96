"""A client for FastStream that waits while the server is away, and makes a group that is gone again.

With its own FastStream would log a traceback for every attempt, and stop for good where the group is gone.
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

    from service.patience import Patience
    from service.ports.storage import RawEntry
    from service.storage.client.reads import Reads


BATCH_BYTES = 2 * 1024 * 1024
"""Of large entries (arrays of events) a batch has fewer, so that it takes no longer than one of small."""

ENTRIES_AT_ONCE, _BYTES_AT_ONCE = 500, 192 * 1024
"""Entries that one reply has, and their bytes: with all that is made of them while they are gathered, they
fit into a processor's own cache."""

_PAUSES = (0, 0.05, 0.2, 0.8)
"""Seconds before each further try, where a connection to a cluster was lost. That happens now and then and
means nothing: only what still fails after about a second means that the cluster is away."""

_SAMPLE = 16
"""Entries that are looked at, to tell how large they are."""


class Group(Protocol):
    """A consumer group."""

    async def ensure(self) -> None:
        """Make it, if it is not there."""
        ...


class Collector(Protocol):
    """What takes entries as they are read."""

    def extend(self, entries: Sequence[RawEntry], /) -> None:
        """Add some, in the order of their ids."""
        ...


class Input(NamedTuple):
    """A stream that is read."""

    group: Group
    patience: Patience
    new_batch: Callable[[], Collector] = list
    entries_at_most: Callable[[], int | None] = lambda: None
    """How many entries the next batch should have at most; None: as many as it may."""


class Patient:
    """What every client for FastStream has, whatever it is a client of."""

    inputs: Mapping[str, Input]
    """By the names of their streams."""
    latest: dict[str, _Latest]
    """Of each stream, once it was read."""
    reads: Reads
    """Those under way; one has ended when FastStream has had its batch taken, and reads on."""

    _in_pipelines: ClassVar[dict[str, bool]] = {}
    """How several commands are sent."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Read when the server can; FastStream is given a whole batch as one entry.

        It would look at each, and redis-py make a dictionary of each. FastStream also pings, and makes the
        group, at the stream's end. Neither is done: no reader waits for another one's server, and the group
        is there, and begins where it should.
        """
        if args[0] != "XREADGROUP":
            return True
        stream = next(arg for arg in args if arg in self.inputs)
        self.reads.end(stream)
        latest = self.latest.get(stream, _NOTHING)
        # A batch is made before it is read, so that it notes no history that began after its first entry.
        options["taken"] = taken = Taken(self.inputs[stream].new_batch(), latest.entry_bytes)
        commands = _commands(args, latest, self.inputs[stream].entries_at_most())
        with logs.bound(stream=stream):
            if len(commands) == 1 or not await self._read_at_once(stream, commands, options):
                await self.inputs[stream].patience.until_done(self._read, stream, commands[0], options)
        self.latest[stream] = _Latest(taken.entries, taken.entry_bytes)
        return [(stream.encode(), [(taken.last_id, taken.batch)])] if taken.entries else []

    async def _read(self, stream: str, command: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Read one reply."""
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
        raise StorageUnavailableError("NOGROUP", "the consumer group was gone, and is made again")

    async def _ask(self, command: tuple[Any, ...], options: dict[str, Any]) -> None:
        await super().execute_command(*command, **options)  # type: ignore[misc]  # the client's

    async def _read_at_once(
        self, stream: str, commands: list[tuple[Any, ...]], options: dict[str, Any]
    ) -> bool:
        """Read several replies; whether something came, or nothing went wrong.

        Whatever does, so will the next read find, and know what to do.
        """
        taken: Taken = options["taken"]
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
    async def _under_way(self, stream: str, taken: Taken) -> AsyncIterator[None]:
        """A read; if it brings something, it has not ended with this."""
        await self.reads.begin(stream)
        try:
            yield
        finally:
            if not taken.entries:
                self.reads.end(stream)


class _Latest(NamedTuple):
    """What the latest read of a stream has brought."""

    entries: int = 0
    entry_bytes: int = 1
    """Of an entry, about."""


_NOTHING = _Latest()


@dataclass(slots=True)
class Taken:
    """What a read has brought so far."""

    batch: Collector
    entry_bytes: int
    """Of an entry of the latest reply, about; of this read or the one before."""
    entries: int = 0
    last_id: bytes = b"0-0"

    def add(self, entries: Sequence[RawEntry]) -> None:
        """Add a reply's entries.

        When the group is made again between two replies, it begins at the stream's beginning. A batch has
        entries in order, and once; what is left out stays pending, and is taken over.
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
    """The commands for a read: the first one waits, the others ask for what is there by then.

    Each asks for what fits into the cache, and all together for twice as much as the latest read has brought:
    the server is to have the next reply ready when one has been gathered.
    """
    at, block = args.index(b"COUNT") + 1, args.index(b"BLOCK")
    count = max(1, min(int(args[at]), BATCH_BYTES // latest.entry_bytes, entries_at_most or int(args[at])))
    at_once = max(1, min(count, ENTRIES_AT_ONCE, _BYTES_AT_ONCE // latest.entry_bytes))
    first = (*args[:at], at_once, *args[at + 1 :])
    times = max(1, min(count, 2 * latest.entries) // at_once)
    return [first, *[(*first[:block], *first[block + 2 :])] * (times - 1)]


def gather(reply: Any, *, taken: Taken, **_options: Any) -> None:
    """Add what was read to its batch, as soon as the reply is there; redis-py calls this."""
    streams = reply.items() if isinstance(reply, dict) else reply or ()
    for _, entries in streams:
        if entries:
            taken.add(entries)


def _size(entries: Sequence[RawEntry]) -> int:
    """Bytes of an entry, about: the mean of some that are spread over the batch."""
    some = entries[:: max(1, len(entries) // _SAMPLE)]
    return 1 + sum(len(value) for _, fields in some for value in fields) // len(some)


class PatientRedis(Patient, Redis):  # type: ignore[misc]  # redis-py's own bases disagree
    """Of one server."""


class PatientMaster(Patient, Master):  # type: ignore[misc]  # redis-py's own bases disagree
    """Of the master that sentinels know."""


class PatientCluster(Patient, Cluster):  # type: ignore[misc]  # redis-py's own bases disagree
    """Of a cluster."""

    # A command that is redirected would go through `execute_command`; the next read finds the way.
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
            # The other connections may be lost too, and the map be another one. If another read has closed
            # them meanwhile, those of now are new, and other reads wait on them.
            async with self._closing:
                if times_closed == self._times_closed:
                    await self.aclose()
                    self._times_closed += 1
            await asyncio.sleep(pause)
        return await super()._ask(command, options)
