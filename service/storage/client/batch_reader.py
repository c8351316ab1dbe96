"""Read the batches of several streams over one connection, and let each batch grow for a few milliseconds.

1. A stream has a `Request` while its subscriber waits for a batch. One read covers all streams with a
   request. It blocks until an entry comes or `block_ms` have passed: at most `_OTHERS_BLOCK_MS` while another
   subscriber is at work, and not at all while a batch is open. A read that blocks is one XREADGROUP, with the
   smallest number of entries that a request wants. (Requests want different numbers if their entries differ
   in size.) A read that does not block has a command for each number. If the numbers differ, the read after
   one that brought entries does not block either.
2. A stream with a backlog gets further commands in the same round trip, for larger batches
   (`read_plan.py`).
3. A batch with entries stays open for `linger` seconds after its first one, and the streams are read again
   `_TICKS` times in this time. Each batch costs a commit, so larger batches are cheaper.
4. A batch is complete at once if `linger` is 0, if it has many entries, if it is urgent, if all requested
   entries came (there may be more), or if its first read brought a single entry after `linger` seconds
   without any.
5. After an error, open batches are complete. Each other stream is read on its own, because an error of one
   stream (no group, no right, another type) fails the command for all. A stream that fails again is read by
   `read_alone` until that succeeds; the others go on together.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from redis import exceptions

from service.cancelling import cancel
from service.under_way import Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from service.ports.storage import RawEntry
    from service.storage.client.direct import DirectConnection, DirectConnections, Words
    from service.storage.client.read_batch import Collector, ReadBatch
    from service.storage.client.read_plan import ReadPlan
    from service.storage.client.reads import Reads

_TICKS = 3
"""Number of reads of a lingering batch after its first one."""

_NO_LINGER_ENTRIES = 200
"""Minimum entries of a batch that does not linger: its commit's fixed cost is small beside their own cost."""

_OTHERS_BLOCK_MS = 5
"""Maximum ms that a read blocks while a subscriber is at work: its next request waits for the read to end."""

_FAILURES = (exceptions.RedisError, exceptions.RedisClusterException)
"""Errors of the server or of the connection; those of a cluster without a master are no `RedisError`."""

_OF_ONE_STREAM = ("NOGROUP", "NOPERM", "WRONGTYPE")
"""Errors of a single stream, after which the connection is as good as before."""


class Consumer(NamedTuple):
    """A consumer of a group."""

    group: str
    name: str


@dataclass(slots=True)
class Request:
    """A subscriber's request for the next batch of its stream."""

    stream: str
    after: str
    """The id that stands for new entries."""
    consumer: Consumer
    """The same for all requests of a reader."""
    plan: ReadPlan
    block_ms: int
    batch: ReadBatch[Collector]
    is_urgent: Callable[[Any], bool]
    complete: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when the batch is complete, with entries or without, or with an error for `BatchReader.read`."""
    opened_at: float = 0.0
    """Time of the batch's first entry in seconds of the event loop's clock; 0 before it came."""
    is_alone: bool = False
    """True if the batch's first reply had one entry, and none had come in the `linger` seconds before."""
    missing: int = 0
    """Entries that the latest round trip requested for this stream, minus those that came."""

    def more_commands(self) -> list[Words]:
        """Return the other `plan.reads - 1` reads of a round trip: `command()` each time; often none."""
        return [self.command()] * (self.plan.reads - 1)

    def command(self) -> Words:
        """Return an XREADGROUP of this stream alone, for `plan.entries` entries, that does not block."""
        return _command(self.plan.entries, [self])


class BatchReader:
    """Reads the batches of streams that one server has.

    Args:
        connections: the connection to the server, used by nothing else, since reads block it.
        linger: maximum seconds for which a batch stays open after its first entry.
        reads: the registry of reads in progress. The reader registers each round trip under `name`, and a
            stream under its own name when its batch gets a first entry. `ReadingClient` ends the latter.
        read_alone: retries a read for a request until one succeeds, without blocking for entries; so the
            batch may stay empty.
        name: name of the reader's own read, which no stream has.
    """

    def __init__(
        self,
        connections: DirectConnections,
        linger: float,
        reads: Reads,
        read_alone: Callable[[Request], Awaitable[None]],
        name: str,
    ) -> None:
        self._connections = connections
        self._linger = linger
        self._reads = reads
        self._read_alone = read_alone
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._requests: dict[str, Request] = {}
        self._latest_entry: dict[str, float] = {}
        """Time at which the latest entry of each stream came; 0 if none has."""
        self._read_at = 0.0
        """Time at which the latest read ended."""
        self._brought_entries = False
        """True if the latest read brought entries."""
        self._has_requests = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()

    async def read(self, request: Request) -> None:
        """Read entries into the batch of a request; return when the batch is complete.

        The batch is empty if no entry came within `block_ms`. While reads are blocked, an empty batch waits.
        A stream may have only one request at a time. If the call is cancelled, entries that came stay
        pending. Errors that a retry or an operator can resolve are waited for.

        Raises:
            Exception: an error of `read_alone`, or of the program, while the batch was empty.
        """
        self._latest_entry.setdefault(request.stream, 0.0)
        self._requests[request.stream] = request
        self._has_requests.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            await request.complete
        finally:
            self._remove(request)

    async def close(self) -> None:
        """Stop reading, and close the connection. Entries of open batches stay pending.

        A call of `read` that is waiting does not return, so cancel its task.
        """
        await cancel(*self._alone, *([] if self._task is None else [self._task]))
        self._connections.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._go_on()
            except Exception as error:  # noqa: BLE001 - a bug; raised in `read`, and FastStream reads again
                for request in list(self._requests.values()):
                    # Entries that came are processed all the same.
                    self._complete(request, None if request.batch.entry_count else error)

    async def _go_on(self) -> None:
        """Complete the batches that are due, wait until the next read, and read all streams once."""
        self._complete_due()
        await self._until_next_read()
        if self._reads.blocked:
            self._complete_due()
        if not self._requests:  # completed, or cancelled during the pause
            return
        requests, block_ms = list(self._requests.values()), self._block_ms()
        try:
            async with self._in_progress():
                with Step("read", requests[0].stream):
                    await self._read_all(requests, block_ms)
        except _FAILURES as error:
            await self._read_each(requests, error)

    @asynccontextmanager
    async def _in_progress(self) -> AsyncIterator[None]:
        """Register the reader's own read while the block runs; wait first while reads are blocked."""
        await self._reads.begin(self._name)
        try:
            yield
        finally:
            self._reads.end(self._name)

    # ------------------------------------------------------------------------------------------- when to read

    async def _until_next_read(self) -> None:
        """Wait for a request; then wait, if a batch is open or a subscriber is at work.

        The second wait ends `linger / _TICKS` seconds after the latest read, or when an open batch is due.
        """
        while not self._requests:
            self._has_requests.clear()
            await self._has_requests.wait()
        opened = [request.opened_at for request in self._requests.values() if request.batch.entry_count]
        if opened or self._others_at_work():
            at = self._read_at + self._linger / _TICKS
            pause = min([at, *(each + self._linger for each in opened)]) - self._loop.time()
            if pause > 0:
                await asyncio.sleep(pause)

    def _has_open_batch(self) -> bool:
        return any(request.batch.entry_count for request in self._requests.values())

    def _others_at_work(self) -> bool:
        return len(self._requests) + len(self._alone) < len(self._latest_entry)

    def _block_ms(self) -> int | None:
        """Return the ms for which the next read blocks, or None if it does not."""
        if self._has_open_batch() or (
            self._brought_entries and len(_counts(list(self._requests.values()))) > 1
        ):
            return None
        requested = min(request.block_ms for request in self._requests.values())
        return min(requested, _OTHERS_BLOCK_MS) if self._others_at_work() else requested

    # ------------------------------------------------------------------------------------------------ reading

    async def _read_all(self, requests: list[Request], block_ms: int | None) -> None:
        """Read streams in one round trip, and add the entries to their batches.

        If the read has blocked and no stream has an entry, complete the requests whose own `block_ms` has
        passed, with empty batches. Other batches are not completed here.
        """
        counts = _counts(requests)
        if block_ms is not None:  # one command, so that it returns if any stream has an entry
            commands = [_command(min(counts), requests, block_ms)]
        else:
            commands = [
                _command(count, [each for each in requests if each.plan.entries == count]) for count in counts
            ]
        for request in requests:
            request.missing = (min(counts) if block_ms is not None else request.plan.entries) + (
                request.plan.reads - 1
            ) * request.plan.entries
            commands += request.more_commands()
        self._brought_entries = False
        await self._send(requests[0].stream, commands, block_ms)
        self._read_at = self._loop.time()
        if block_ms is not None and not self._brought_entries:
            for request in requests:
                if request.block_ms <= block_ms:
                    self._complete(request)

    async def _send(self, key: str, commands: list[Words], block_ms: int | None) -> None:
        """Send reads together to the server that has `key`, and add their replies to the batches.

        Return when all replies have come. After an error, close the connection, unless the error is about a
        single stream.

        Raises:
            RedisError: the first error; all other replies have been added. Or no connection could be opened.
            RedisClusterException: no master has the key.
        """
        connection = await self._connections.to_server_of(key)
        patience = 0 if block_ms is None else block_ms / 1000
        replies = [connection.request(words, self._collect, patience) for words in commands]
        failed: BaseException | None = None
        try:
            for reply in replies:
                try:
                    await reply
                except _FAILURES as error:
                    failed = failed or error
        finally:
            _forget(replies)
        if failed is not None:
            _close_after(connection, failed)
            raise failed

    def _collect(
        self, reply: dict[bytes, list[RawEntry]] | list[tuple[bytes, list[RawEntry]]] | None
    ) -> None:
        """Add the entries of a reply to the batches of their streams' requests.

        The first entries of a batch also register the read of their stream in `reads`. Entries of a stream
        without a request are dropped, and stay pending.

        Args:
            reply: entries by stream, as a dictionary (RESP3) or in pairs (RESP2); None if there are none.
        """
        if not reply:
            return
        now, self._brought_entries = self._loop.time(), True
        for name, entries in reply.items() if isinstance(reply, dict) else reply:
            if not entries:
                continue
            stream = name.decode()
            request = self._requests.get(stream)
            if request is None:  # its subscriber was cancelled; the entries stay pending
                continue
            batch = request.batch
            if not batch.entry_count:
                request.opened_at = now
                request.is_alone = len(entries) == 1 and now - self._latest_entry[stream] >= self._linger
                self._reads.register(stream)
            self._latest_entry[stream] = now
            request.missing -= len(entries)
            batch.add(entries)

    # ------------------------------------------------------------------------------------------ when complete

    def _complete_due(self) -> None:
        """Complete the batches that have entries and are not to grow any more."""
        now = self._loop.time()
        for request in list(self._requests.values()):
            if request.batch.entry_count and self._is_due(request, now):
                self._complete(request)

    def _complete(self, request: Request, error: Exception | None = None) -> None:
        self._remove(request)
        if request.complete.done():  # its subscriber was cancelled
            return
        if error is None:
            request.complete.set_result(None)
        else:
            request.complete.set_exception(error)

    def _remove(self, request: Request) -> None:
        if self._requests.get(request.stream) is request:
            del self._requests[request.stream]

    def _is_due(self, request: Request, now: float) -> bool:
        return (
            now >= request.opened_at + self._linger
            or request.batch.entry_count >= _NO_LINGER_ENTRIES
            or request.missing <= 0
            or request.is_alone
            or self._reads.blocked
            or request.is_urgent(request.batch.collected)
        )

    # ------------------------------------------------------------------------------------------------- errors

    async def _read_each(self, requests: list[Request], error: Exception) -> None:
        """Complete the open batches after an error, and read streams with empty batches on their own.

        After an error reply, try each of these streams once. If a stream fails again, a task retries it while
        the others are read together. After any other error, the server is unavailable: retry the first of
        the streams until it can be read, and leave the others for the next read.
        """
        for request in requests:
            if request.batch.entry_count:
                self._complete(request)
        others = [request for request in requests if not request.batch.entry_count]
        if not isinstance(error, exceptions.ResponseError):
            # The server is unavailable. Once one stream can be read again, the others can be, too.
            for request in others[:1]:
                await self._read_alone(request)
            return
        for request in others:
            try:
                async with self._in_progress():
                    await self._send(request.stream, [request.command()], None)
            except _FAILURES:
                self._remove(request)
                task = asyncio.create_task(self._read_on_its_own(request))
                self._alone.add(task)
                task.add_done_callback(self._alone.discard)

    async def _read_on_its_own(self, request: Request) -> None:
        """Retry the read of one stream until it succeeds.

        If it brings entries, the request is complete; else the stream is read with the others again. An error
        that `read_alone` raises is raised by `read`.
        """
        try:
            await self._read_alone(request)
        except Exception as error:  # noqa: BLE001 - raised in `read`
            self._complete(request, error)
            return
        if request.batch.entry_count:
            self._complete(request)
        else:
            self._requests[request.stream] = request
            self._has_requests.set()


def _counts(requests: list[Request]) -> set[int]:
    """Return the distinct values of `plan.entries` of the requests."""
    return {request.plan.entries for request in requests}


def _command(count: int, requests: list[Request], block_ms: int | None = None) -> Words:
    group, name = requests[0].consumer
    blocking: Words = () if block_ms is None else (b"BLOCK", block_ms)
    streams = [request.stream for request in requests]
    after = [request.after for request in requests]
    # Keywords are bytes, as redis-py passes them: `cluster.py` looks for STREAMS.
    head = ("XREADGROUP", b"GROUP", group, name, b"COUNT", count)
    return (*head, *blocking, b"STREAMS", *streams, *after)


def _forget(replies: list[asyncio.Future[None]]) -> None:
    """Cancel the replies that have not come, and keep asyncio from logging the errors of the others."""
    for reply in replies:
        if not reply.cancel() and not reply.cancelled():
            reply.exception()


def _close_after(connection: DirectConnection, error: BaseException) -> None:
    """Close a connection after an error, unless the error is one of a single stream (`_OF_ONE_STREAM`).

    Any other error may be the server's, such as that it is a replica now.
    """
    if not str(error).startswith(_OF_ONE_STREAM):
        connection.close()
