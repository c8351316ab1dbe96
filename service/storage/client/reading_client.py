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
2. `xreadgroup` makes a `Request`, and returns when its batch is complete. A `BatchReader` reads all streams
   that have a request, over one connection; in a cluster, each stream has its own. `batch_reader.py`
   describes when it reads and when a batch is complete, `read_plan.py` the number of reads and entries.
3. The connection is one of `direct.py`: redis-py opens it, and sends nothing over it. Its protocol passes
   each reply to the batch as soon as it has come, while the server prepares the next one. A reply is so
   small that its entries, and the data decoded from them, fit into the processor's cache.
4. FastStream receives the `ReadBatch` in place of the fields of a single entry. So neither redis-py nor
   FastStream does any work for each entry.
5. After an error, streams are read one by one. A stream that fails again is read through redis-py, and
   retried until that succeeds. A missing group is created at the start of the stream. If a read fails after
   another read of the same batch has brought entries, the batch is complete with these; the next read meets
   the error again.
6. A read is in progress until FastStream asks for the next batch of its stream, so that shutdown can wait
   for it. `reads.py` records the reads in progress.

Seams
=====

The program relies on the following behaviour, which FastStream 0.7 and redis-py 8 do not promise.
`tests/contract/test_reading_seams.py` tests each seam with the installed versions, by its number.

FastStream:

F1. The constructor of `RedisBroker` gets its connection from `_make_connection_state` (private). The
    connection gives out `_client` (private), and closes it with `aclose` when the broker stops.
F2. A batch subscriber calls `xgroup_create`, `ping` and then only `xreadgroup`, with the keyword arguments
    below. Its start fails if `ping` takes 3 s, so the client sends no PING. It sends no XGROUP CREATE
    either: the group exists already, and a new one would begin at the end of the stream.
F3. A reply `[(stream, [(id, X)])]` reaches the parser as `{"data": [X], "message_ids": [id], ...}`, and the
    decoder's result reaches the function. FastStream neither copies nor inspects X. (But it makes a
    pydantic model of the function's parameter when it starts, even with `apply_types=False`; hence the type
    Any.)
F4. An empty reply reaches no function; FastStream calls `xreadgroup` again at once.
F5. FastStream calls `xreadgroup` again only after the function has returned.
F6. An exception from the function is logged, and reading goes on.
F7. `subscriber.start` begins reading even after the broker's start.
F8. `subscriber.tasks` (undocumented) has the reading task until the broker stops. The broker then cancels
    the task, does not wait for its end, and empties the list.
F9. FastStream's binary envelope begins with `BinaryMessageFormatV1.IDENTITY_HEADER`, a version and two
    offsets (`service/bus/envelope.py`).

redis-py:

R1. A response callback gets the options of `execute_command` as keyword arguments. It replaces redis-py's
    own parser: entries are lists `[id, [name, value, ...]]`, by stream.
R2. After `connect`, `_writer` of a connection is asyncio's `StreamWriter`, no reply is outstanding, and
    `_parser.parse_error` makes an exception of the text of an error reply (all private). A connection
    without `_writer` counts as closed.
R3. `connection_pool.make_connection` makes a connection to the server, or to the master behind sentinels. A
    cluster's node has `connection_class` and `connection_kwargs` for it.
R4. With `Retry(NoBackoff(), 0)`, redis-py never sends a command again.
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
4. Run `make test-all` and `make chaos`, and compare the processor time of a read with the previous
   versions.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

from redis import exceptions

from service import logs, under_way
from service.ports.storage import StorageUnavailableError
from service.storage.client.availability import unavailable_if_away
from service.storage.client.batch_reader import BatchReader, Consumer, Request
from service.storage.client.direct import DirectConnections
from service.storage.client.read_batch import Collector, ReadBatch
from service.storage.client.read_plan import plan_reads
from service.storage.client.reads import Reads
from service.under_way import Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from redis.asyncio import Redis

    from service.ports.storage import RawEntry
    from service.retrying import RetryUntilAvailable
    from service.storage.client.direct import Words

_PAUSES = (0, 0.05, 0.2, 0.8)
"""Seconds before each retry after a lost connection to a cluster. A lost connection is common; only a failure
for about a second means that the cluster is unavailable."""


class GroupCreator(Protocol):
    """A consumer group that can be created."""

    async def ensure(self) -> object:
        """Create the group at the beginning of its stream, unless it exists."""
        ...


class Input(NamedTuple):
    """The consumer group, the retries and the batch limits of one input stream."""

    group: GroupCreator
    retrying: RetryUntilAvailable
    new_collector: Callable[[], Collector] = list
    """Return a new object that receives the entries of the next batch; called before its first read."""
    entries_at_most: Callable[[], int | None] = lambda: None
    """Return a further maximum of entries for each round trip of the next batch; None for no further one."""
    max_reads: int | None = None
    """Maximum reads in each round trip of a batch, or None for no limit."""
    is_urgent: Callable[[Any], bool] = lambda _: False
    """Return whether a batch, given as its collector, should not wait for further entries."""


class _Latest(NamedTuple):
    """The size of the latest batch of a stream."""

    entry_count: int = 0
    entry_bytes: int = 1
    """Approximate bytes of an entry."""


_NOTHING = _Latest()

_Reply = list[tuple[bytes, list[tuple[bytes, ReadBatch[Collector]]]]]


class ReadingClient:
    """The methods of a Redis client that FastStream calls, for the streams in `inputs`.

    FastStream awaits `xreadgroup` in a loop for each stream. An unavailable server is waited for, so it sees
    no outage.

    Args:
        client: client of the server. It must not retry, or the replies of repeated commands would be added
            to those that have come. Its callback for XREADGROUP is replaced.
        inputs: the inputs by the names of their streams.
        linger: maximum seconds for which a batch waits for further entries after its first one.
    """

    def __init__(self, client: Redis, inputs: Mapping[str, Input], linger: float = 0.0) -> None:
        self._client = client
        self._inputs = inputs
        self._linger = linger
        self._latest: dict[str, _Latest] = {}
        self.reads = Reads()
        """The reads in progress. A read that brought entries ends when FastStream asks for the next batch of
        its stream, that is, when the subscriber function has returned."""
        self._readers: dict[str, BatchReader] = {}
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
        """Read the next batch of a stream, and return it as a single entry.

        The call also ends the read of the stream's previous batch, for which the subscriber function has
        returned. Wait while reads are blocked, and until the server is available. Create a missing group.

        Args:
            groupname: the consumer group.
            consumername: the consumer.
            streams: the name of one stream of `inputs`, and the id that stands for new entries.
            count: maximum entries that a round trip requests. A batch that lingers may get more.
            block: milliseconds to wait for a first entry.
            noack: False: entries are pending until they are acknowledged.

        Returns:
            The stream with one entry: the id is that of the last entry of the batch, and a `ReadBatch` takes
            the place of the fields. An empty list if there was no entry.

        Raises:
            Exception: an error that no retry can resolve, if it came before any entry.
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
        consumer = Consumer(groupname, consumername)
        request = Request(stream, after, consumer, plan, block, batch, source.is_urgent)
        await self._reader_of(stream).read(request)
        self._latest[stream] = _Latest(batch.entry_count, batch.entry_bytes)
        return [(stream.encode(), [(batch.last_id, batch)])] if batch.entry_count else []

    async def aclose(self) -> None:
        """Stop reading, and close all connections. Entries of open batches stay pending."""
        for reader in self._readers.values():
            await reader.close()
        await self.close_connections()

    async def close_connections(self) -> None:
        """Close the connections of redis-py, which are opened again when they are needed.

        The connections of `direct.py` stay open.
        """
        await self._client.aclose()

    def _reader_of(self, stream: str) -> BatchReader:
        """Return the reader that reads a stream, perhaps with other streams; create it on first use."""
        name = self._reader_name(stream)
        if name not in self._readers:
            self._readers[name] = BatchReader(
                DirectConnections(self._client), self._linger, self.reads, self._read_alone, f"reader {name}"
            )
        return self._readers[name]

    def _reader_name(self, _stream: str) -> str:
        """Return a name for the reader of a stream; streams with the same name are read together.

        Here, the name is empty for all streams.
        """
        return ""

    async def _read_alone(self, request: Request) -> None:
        """Read one reply for a request after a read failed, and retry until that succeeds.

        The read does not block for entries, so the reply may have none. A missing group is created. Errors
        that no retry can resolve are raised.
        """
        with logs.bound(stream=request.stream), Step("read", request.stream):
            under_way.unavailable()  # at once: a worker that drains waits here before its first attempt
            await self._inputs[request.stream].retrying.call(self._read, request)

    async def _read(self, request: Request) -> None:
        """Try once to read one reply for a request, and add its entries to the batch, if it has any.

        Wait while reads are blocked. If the group is missing, create it.

        Raises:
            StorageUnavailableError: retry the read. The server is unavailable, an operator has to change its
                setup (`SetupError`), or the group was missing.
            RedisError: the server refuses the read for another reason.
        """
        async with self._in_progress(request.stream, request.batch):
            try:
                with unavailable_if_away(request.stream):
                    await self._send(request.command(), request.batch)
            except exceptions.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
            else:
                return
        await self._inputs[request.stream].group.ensure()
        raise StorageUnavailableError("NOGROUP", "the consumer group was missing and has been created again")

    async def _send(self, command: Words, batch: ReadBatch[Collector]) -> None:
        """Send a read through redis-py, and return when its reply has been added to the batch."""
        await self._client.execute_command(*command, batch=batch)  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def _in_progress(self, stream: str, batch: ReadBatch[Collector]) -> AsyncIterator[None]:
        """Register the read of a stream, after a wait while reads are blocked.

        When the block ends, unregister it only if the batch is empty. Else it stays registered until the next
        call of `xreadgroup` for the stream.
        """
        await self.reads.begin(stream)
        try:
            yield
        finally:
            if not batch.entry_count:
                self.reads.end(stream)


class ClusterReadingClient(ReadingClient):
    """A reading client of a cluster, which reads each stream over a connection of its own.

    If a read through redis-py loses its connection, it is sent again up to four times. Before that, all
    connections of redis-py are closed, unless another read has just done so.
    """

    def __init__(self, client: Redis, inputs: Mapping[str, Input], linger: float = 0.0) -> None:
        super().__init__(client, inputs, linger)
        self._closing = asyncio.Lock()
        self._times_closed = 0

    def _reader_name(self, stream: str) -> str:
        return stream  # streams of several slots cannot be read together

    async def _send(self, command: Words, batch: ReadBatch[Collector]) -> None:
        for pause in _PAUSES:
            async with self._closing:
                times_closed = self._times_closed
            with contextlib.suppress(exceptions.ConnectionError):
                return await super()._send(command, batch)
            # The other connections may be lost too, and the slot map may be outdated, so close them all. If
            # another read has done that meanwhile, the connections are new and in use by other reads.
            async with self._closing:
                if times_closed == self._times_closed:
                    await self.close_connections()
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
        batch: the batch that the call of `execute_command` got as an option.
    """
    streams = reply.items() if isinstance(reply, dict) else reply or ()
    for _, entries in streams:
        if entries:
            batch.add(entries)
