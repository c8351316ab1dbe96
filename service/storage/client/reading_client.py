"""The client with which FastStream reads: many entries at once, and through outages of the server.

With a client of redis-py, FastStream would inspect each entry, log a traceback for each failed attempt, and
stop for good if the consumer group is missing.

Theory of operation
===================

1. FastStream reads in a loop: it calls `xreadgroup`, passes the reply to the subscriber function, and calls
   again when that has returned. `service/bus/subscription.py` tells FastStream

   - to pass each reply to one call of the function (`batch=True`);
   - to acknowledge nothing (`AckPolicy.MANUAL`), since a script does;
   - to publish no reply;
   - to use our parser and decoder, since its own would decode a batch as one JSON array.

   The broker gets the client below instead of connecting one (`service/bus/broker.py`).
2. `xreadgroup` sends several smaller reads in one pipeline (`read_plan.py` decides how many). The first read
   blocks; the others do not wait: they return entries that have come meanwhile.
3. redis-py calls `_add_reply` for each reply as soon as it has come, while the server prepares the next one.
   This adds the reply to a `ReadBatch`. A reply is so small that its entries, and the data decoded from them,
   fit into the processor's cache.
4. FastStream receives the `ReadBatch` in place of the fields of a single entry. So neither redis-py nor
   FastStream does any work for each entry.
5. If the pipeline fails before any entry has come, the client sends a single read and retries it until it
   succeeds. A missing group is created at the start of the stream. If the pipeline fails later, the
   entries that have come are the batch; the next read meets the error again.
6. A read is in progress until FastStream asks for the next batch of its stream, so that shutdown can wait for
   it. `reads.py` records the reads in progress.
7. All reads go through `_send` and `_send_together`, on connections from the pool of `reading_client_of`
   (`connection.py`). The rest of the worker, commits included, shares the pool of `client_of`. To give each
   stream a connection of its own, change these two methods; to configure the connections of reads or of
   commits, change `connection.py`.

Seams
=====

The program relies on the following behaviour, which FastStream 0.7 and redis-py 8 do not promise.
`tests/contract/test_reading_seams.py` tests each seam with the installed versions, by its number.

FastStream:

F1. The constructor of `RedisBroker` gets its connection from `_make_connection_state` (private). The
    connection gives out `_client` (private), and closes it with `aclose` when the broker stops.
F2. A batch subscriber calls `xgroup_create`, `ping` and then only `xreadgroup`, with the keyword arguments
    below. Its start fails if `ping` takes 3 s, so the client sends no PING. It sends no XGROUP CREATE either:
    the group exists already, and a new one would begin at the end of the stream.
F3. A reply `[(stream, [(id, X)])]` reaches the parser as `{"data": [X], "message_ids": [id], ...}`, and the
    decoder's result reaches the function. FastStream neither copies nor inspects X. (But it makes a pydantic
    model of the function's parameter when it starts, even with `apply_types=False`; hence the type Any.)
F4. An empty reply reaches no function; FastStream calls `xreadgroup` again at once.
F5. FastStream calls `xreadgroup` again only after the function has returned.
F6. An exception from the function is logged, and reading goes on.
F7. `subscriber.start` begins reading even after the broker's start.
F8. `subscriber.tasks` (undocumented) has the reading task until the broker stops. The broker then cancels the
    task, does not wait for its end, and empties the list.
F9. FastStream's binary envelope begins with `BinaryMessageFormatV1.IDENTITY_HEADER`, a version and two
    offsets (`service/bus/envelope.py`).

redis-py:

R1. A response callback gets the options of `execute_command` as keyword arguments, in pipelines too. It
    replaces redis-py's own parser: entries are lists `[id, [name, value, ...]]`, by stream.
R2. A pipeline sends all commands at once, and calls the callback for each reply before it reads the next one.
R3. An error among the replies of a pipeline is raised after all replies were read.
R4. With `Retry(NoBackoff(), 0)`, redis-py never sends a command again. On a cluster, `execute` of a pipeline
    also needs `allow_redirections=False`.
R5. The message of an error that has no class of its own begins with the server's code, such as NOGROUP.
R6. A cluster's client asks `_determine_slot` and `get_nodes_from_slot` for the node of a command, and reads
    the slot map again if `_initialize` is set (`cluster.py`).
R7. A sentinel's connection looks up the master in `connect`, which calls `connect_check_health` with
    `retry_socket_connect=False` (`sentinel.py`).

When FastStream or redis-py is upgraded
=======================================

1. Run `tests/contract/test_reading_seams.py`. A failure names the seam that has moved.
2. Read `_StreamHandlerMixin` and `StreamBatchSubscriber` of FastStream again, and `execute_command`,
   `parse_response` and the pipelines of redis-py's asyncio clients `Redis` and `RedisCluster`.
3. Look for a documented option that can replace a seam.
4. Run `make test-all` and `make chaos`, and compare the processor time of a read with the previous versions.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

from redis import exceptions

from handlers.core.identity import EntryId
from service import logs
from service.ports.storage import StorageUnavailableError
from service.storage.client.availability import unavailable_if_away
from service.storage.client.read_plan import bytes_of_entry, plan_reads
from service.storage.client.reads import Reads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from redis.asyncio import Redis

    from service.ports.storage import RawEntry
    from service.retrying import RetryUntilAvailable

_PAUSES = (0, 0.05, 0.2, 0.8)
"""Seconds before each retry after a lost connection to a cluster. A lost connection is common; only a failure
for about a second means that the cluster is unavailable."""


class GroupCreator(Protocol):
    """A consumer group that can be created."""

    async def ensure(self) -> None:
        """Create the group, unless it exists."""
        ...


class Collector(Protocol):
    """An object that receives the entries of a batch."""

    def extend(self, entries: Sequence[RawEntry], /) -> None:
        """Add entries in the order of their ids."""
        ...


CollectorT = TypeVar("CollectorT", bound=Collector)


@dataclass(slots=True)
class ReadBatch(Generic[CollectorT]):
    """The entries that the reads of a batch have brought so far."""

    collected: CollectorT
    """Object that has received the entries."""
    entry_bytes: int
    """Approximate bytes of an entry in the latest reply; before the first reply, the value of the previous
    batch."""
    entry_count: int = 0
    last_id: bytes = b"0-0"

    def add(self, entries: Sequence[RawEntry]) -> None:
        """Add the entries of a reply, but only those with ids above all ids of the batch.

        If the group is recreated between two replies, it begins again at the start of the stream. A batch
        has its entries in order and without repeats, so entries with lower ids are skipped. They stay pending
        and are claimed later.
        """
        if _parsed(entries[0][0]) <= _parsed(self.last_id):
            entries = [entry for entry in entries if _parsed(entry[0]) > _parsed(self.last_id)]
        if entries:
            self.collected.extend(entries)
            self.entry_count += len(entries)
            self.last_id, self.entry_bytes = entries[-1][0], bytes_of_entry(entries)


def _parsed(entry_id: bytes) -> EntryId:
    return EntryId.parse(entry_id.decode())


class Input(NamedTuple):
    """The consumer group, the retries and the batch limits of one input stream."""

    group: GroupCreator
    retrying: RetryUntilAvailable
    new_collector: Callable[[], Collector] = list
    """Return the object that receives the entries of the next batch."""
    entries_at_most: Callable[[], int | None] = lambda: None
    """Return the maximum entries of the next batch, or None for no limit but the configured one."""
    max_reads: int | None = None
    """Maximum reads of a batch, or None for no limit."""


class _Latest(NamedTuple):
    """The size of the latest batch of a stream."""

    entry_count: int = 0
    entry_bytes: int = 1
    """Approximate bytes of an entry."""


_NOTHING = _Latest()

_Command = tuple[str | bytes | int, ...]
_Reply = list[tuple[bytes, list[tuple[bytes, ReadBatch[Collector]]]]]


class ReadingClient:
    """The methods of a Redis client that FastStream calls, for the streams in `inputs`.

    Args:
        client: client of the server. It must not retry, or the replies of repeated commands would be added
            to those that have come. Its callback for XREADGROUP is replaced.
        inputs: the inputs by the names of their streams.
    """

    _execute_options: ClassVar[Mapping[str, bool]] = {}
    """Options for the execution of a pipeline."""

    def __init__(self, client: Redis, inputs: Mapping[str, Input]) -> None:
        self._client = client
        self._inputs = inputs
        self._latest: dict[str, _Latest] = {}
        self.reads = Reads()
        """The reads in progress; a read ends when FastStream asks for the next batch of the stream."""
        client.set_response_callback("XREADGROUP", cast("Any", _add_reply))

    async def ping(self) -> Literal[True]:
        """Return True without sending a command (F2)."""
        return True

    async def xgroup_create(self, **_arguments: object) -> Literal[True]:
        """Return True without sending a command (F2)."""
        return True

    async def xreadgroup(
        self,
        groupname: str,
        consumername: str,
        streams: Mapping[str, str],
        count: int,
        block: int,
        noack: Literal[False] = False,  # noqa: ARG002, FBT002 - as redis-py has it
    ) -> _Reply:
        """Read a batch, waiting until the server is available, and return it as a single entry.

        Args:
            groupname: the consumer group.
            consumername: the consumer.
            streams: the name of one stream of `inputs`, and the id that stands for new entries.
            count: maximum entries of the batch.
            block: milliseconds to wait for a first entry.
            noack: False: entries are pending until they are acknowledged.

        Returns:
            The stream with an entry that has the id of the last one, and a `ReadBatch` for its fields; an
            empty list if there was no entry.
        """
        ((stream, after),) = streams.items()
        source, latest = self._inputs[stream], self._latest.get(stream, _NOTHING)
        self.reads.end(stream)
        # Create the collector before the read: a `BatchBuilder` keeps the replication id from before its
        # first entry.
        batch = ReadBatch(source.new_collector(), latest.entry_bytes)
        plan = plan_reads(
            count,
            latest_entries=latest.entry_count,
            entry_bytes=latest.entry_bytes,
            entries_at_most=source.entries_at_most(),
            max_reads=source.max_reads,
        )
        # Keywords are bytes, as redis-py passes them: that is cheaper, and `cluster.py` looks for STREAMS.
        read = ("XREADGROUP", b"GROUP", groupname, consumername, b"COUNT", plan.entries)
        first = (*read, b"BLOCK", block, b"STREAMS", stream, after)
        others = [(*read, b"STREAMS", stream, after)] * (plan.reads - 1)
        with logs.bound(stream=stream):
            if not others or not await self._read_together(stream, [first, *others], batch):
                await source.retrying.call(self._read, stream, first, batch)
        self._latest[stream] = _Latest(batch.entry_count, batch.entry_bytes)
        return [(stream.encode(), [(batch.last_id, batch)])] if batch.entry_count else []

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _read(self, stream: str, command: _Command, batch: ReadBatch[Collector]) -> None:
        """Read one reply.

        Raises:
            StorageUnavailableError: retry the read.
        """
        async with self._in_progress(stream, batch):
            try:
                with unavailable_if_away():
                    await self._send(command, batch)
            except exceptions.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
            else:
                return
        await self._inputs[stream].group.ensure()
        raise StorageUnavailableError("NOGROUP", "the consumer group was missing and has been created again")

    async def _read_together(
        self, stream: str, commands: Sequence[_Command], batch: ReadBatch[Collector]
    ) -> bool:
        """Read several replies; return False if an error came before any entry.

        The error itself is dropped, because the next read meets it again and handles it.
        """
        async with self._in_progress(stream, batch):
            try:
                with unavailable_if_away():
                    await self._send_together(commands, batch)
            except (exceptions.RedisError, StorageUnavailableError):
                return batch.entry_count > 0
        return True

    async def _send(self, command: _Command, batch: ReadBatch[Collector]) -> None:
        """Send a read; its reply is added to the batch."""
        await self._client.execute_command(*command, batch=batch)  # type: ignore[no-untyped-call]

    async def _send_together(self, commands: Iterable[_Command], batch: ReadBatch[Collector]) -> None:
        """Send reads in one pipeline; each reply is added to the batch as it comes."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command, batch=batch)
        await pipeline.execute(**self._execute_options)

    @asynccontextmanager
    async def _in_progress(self, stream: str, batch: ReadBatch[Collector]) -> AsyncIterator[None]:
        """Register a read; unregister it at once if it has brought no entries."""
        await self.reads.begin(stream)
        try:
            yield
        finally:
            if not batch.entry_count:
                self.reads.end(stream)


class ClusterReadingClient(ReadingClient):
    """A reading client of a cluster."""

    # redis-py would send redirected commands again, one by one. Here only the single read is redirected.
    _execute_options: ClassVar[Mapping[str, bool]] = {"allow_redirections": False}

    def __init__(self, client: Redis, inputs: Mapping[str, Input]) -> None:
        super().__init__(client, inputs)
        self._closing = asyncio.Lock()
        self._times_closed = 0

    async def _send(self, command: _Command, batch: ReadBatch[Collector]) -> None:
        for pause in _PAUSES:
            async with self._closing:
                times_closed = self._times_closed
            with contextlib.suppress(exceptions.ConnectionError):
                return await super()._send(command, batch)
            # The other connections may be lost too, and the slot map may be outdated, so close them all. If
            # another read has done that meanwhile, the connections are new and in use by other reads.
            async with self._closing:
                if times_closed == self._times_closed:
                    await self.aclose()
                    self._times_closed += 1
            await asyncio.sleep(pause)
        return await super()._send(command, batch)


def _add_reply(
    reply: dict[bytes, list[RawEntry]] | list[tuple[bytes, list[RawEntry]]] | None,
    *,
    batch: ReadBatch[Collector],
    **_options: object,
) -> None:
    """Add a reply's entries to the batch; redis-py calls this as soon as the reply is complete (R1).

    Args:
        reply: entries by stream, as a dictionary (RESP3) or in pairs (RESP2); None if there are none.
        batch: option of the command.
    """
    streams = reply.items() if isinstance(reply, dict) else reply or ()
    for _, entries in streams:
        if entries:
            batch.add(entries)
