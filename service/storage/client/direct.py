"""Direct connections: commands of the hot path go to the server without redis-py in between.

A round trip through redis-py takes 70 to 180 µs of processor time, most of it in asyncio's streams. At
moderate load, when a batch has few events, that is more than the work on the events. Here it takes 20 to 50
µs.

redis-py still finds the server, connects, and logs in, so clusters, sentinels, TLS, passwords and client
names work as everywhere else. Then a `DirectConnection` takes the transport over. It writes each command at
once, and matches the replies to the commands by their order.

This relies on redis-py; seams R2 and R3 in `reading_client.py` say how.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import hiredis
from redis import exceptions
from redis.asyncio.cluster import RedisCluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

Words = tuple[str | bytes | int, ...]
"""A command with its arguments."""

_INCOMPLETE = object()
"""The parser's answer while a reply is incomplete."""


_OTHER_SERVER = (
    exceptions.ConnectionError,
    exceptions.ReadOnlyError,
    exceptions.MovedError,
    exceptions.AskError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.RedisClusterException,  # no RedisError: no master has the slot
)
"""Errors after which `DirectConnections.execute` passes a command to redis-py, which looks for the server
that has its key now."""


class _Waiting(NamedTuple):
    """A command that waits for its reply."""

    reply: asyncio.Future[Any]
    collect: Callable[[Any], None] | None
    deadline: float


class DirectConnection(asyncio.Protocol):
    """A connection that redis-py has opened, and over which commands go without redis-py.

    Use it in one event loop. Commands of several tasks share it: they are sent in the order of the calls. A
    command without a reply in time closes it, and all other commands fail too. It is not opened again.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        """Take over the transport of a connected `connection`, which nothing else may use any more."""
        opened = cast("Any", connection)
        # The writer closes its transport when it is freed, so keep it.
        self._writer: asyncio.StreamWriter = opened._writer  # noqa: SLF001 - seam R2
        opened._reader = opened._writer = None  # noqa: SLF001 - else redis-py closes it, and warns
        self._transport = cast("asyncio.Transport", self._writer.transport)
        self._timeout: float | None = opened.socket_timeout
        self._parser = hiredis.Reader(
            protocolError=exceptions.InvalidResponse,
            replyError=opened._parser.parse_error,  # noqa: SLF001 - seam R2
            notEnoughData=_INCOMPLETE,
        )
        self._waiting: deque[_Waiting] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport.set_protocol(self)
        self.patience = 0.0
        """Seconds that `execute` waits for a reply, in addition to the usual timeout."""

    @property
    def is_open(self) -> bool:
        """True if commands can be sent."""
        return not self._transport.is_closing()

    def request(
        self, words: Words, collect: Callable[[Any], None] | None = None, patience: float = 0.0
    ) -> asyncio.Future[Any]:
        """Send a command at once, and return a future of its reply.

        Args:
            words: the command. Strings are sent as UTF-8.
            collect: called with the reply as soon as it is complete, before the next one is parsed. The
                future's result is then None. If `collect` raises an error, the future raises it. An error
                reply, and the reply of a future that was cancelled, are not passed to `collect`.
            patience: seconds to wait for the reply, in addition to redis-py's `socket_timeout`. If that is
                None, the wait has no limit.

        The future raises:
            RedisError: the server's error reply; or ConnectionError or TimeoutError, if no reply came. The
                command may have been executed all the same. If the connection was closed before the call,
                the ConnectionError means that nothing was sent.
        """
        # Before anything else: an argument that cannot be packed raises an error here.
        packed = hiredis.pack_command(words)  # type: ignore[arg-type]  # its type lacks str
        reply: asyncio.Future[Any] = self._loop.create_future()
        if self._transport.is_closing():
            reply.set_exception(exceptions.ConnectionError("Connection closed by server."))
            return reply
        deadline = 0.0
        if self._timeout is not None:
            deadline = self._loop.time() + self._timeout + patience
            if self._timer is None or (not self._waiting and deadline < self._timer.when()):
                self._set_timer(deadline)
        self._waiting.append(_Waiting(reply, collect, deadline))
        self._transport.write(packed)
        return reply

    async def execute(self, words: Words, _key: str) -> Any:
        """Send a command over this connection and return the reply, within `self.patience` more seconds.

        After an error, the command is not sent again. The key is ignored: it makes the signature that of
        `DirectConnections.execute`.
        """
        return await self.request(words, patience=self.patience)

    def close(self) -> None:
        """Close the connection; commands without a reply fail."""
        self._end(exceptions.ConnectionError("Connection closed."))

    def data_received(self, data: bytes) -> None:
        """Give each complete reply in the bytes received so far to the command that it answers.

        Close the connection if the bytes are no RESP, if a reply answers no command, or if it does not fit
        into the memory.
        """
        parser, waiting = self._parser, self._waiting
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not _INCOMPLETE:
                if type(reply) is hiredis.PushNotification:
                    continue
                answer(waiting.popleft(), reply)
        except (exceptions.InvalidResponse, IndexError) as error:  # no RESP, or a reply to no command
            self._end(exceptions.ConnectionError(f"Protocol error: {error}"))
        except MemoryError:  # a huge entry; the event loop would log a traceback, and the command wait
            self._end(exceptions.ConnectionError("a reply does not fit into the memory of this process"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the commands without a reply."""
        self._end(exceptions.ConnectionError(f"Connection closed by server. {exc or ''}".rstrip()))

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        deadline = self._waiting[0].deadline
        if deadline > self._loop.time():
            self._set_timer(deadline)
        else:
            self._end(exceptions.TimeoutError("Timeout reading from socket"))

    def _end(self, error: Exception) -> None:
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            answer(self._waiting.popleft(), error)


def answer(command: _Waiting, reply: Any) -> None:
    """Set the result of a command's future to the reply, or its exception if the reply is an exception.

    If the command has a `collect`, that gets a reply which is no exception. The result is then None, or the
    exception is the error that `collect` raises. If the future is done, because it was cancelled, the reply
    is dropped.
    """
    future, collect, _ = command
    if future.done():  # cancelled
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    elif collect is None:
        future.set_result(reply)
    else:
        try:
            collect(reply)
        except Exception as error:  # noqa: BLE001 - raised where the reply is awaited
            future.set_exception(error)
        else:
            future.set_result(None)


class DirectConnections:
    """Direct connections to the servers of a client, at most one to each.

    A connection is opened for the first command to its server, and again for the next one after it was lost.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._connections: dict[str, DirectConnection] = {}
        """The connections by the server's name; a server without a cluster has an empty name."""
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """A lock for each server, so that one that hangs holds up no other."""

    async def execute(self, words: Words, key: str) -> Any:
        """Send a command to the server that has `key`, and return the reply.

        If no connection can be opened, the connection is lost, or another server has the key, redis-py sends
        the command instead, with its own retries. The server may then execute the command twice.

        Raises:
            RedisError: the server's error reply; or no server replies in time.
            RedisClusterException: no master has the key.
        """
        connection = None
        try:
            connection = await self.to_server_of(key)
            return await connection.request(words)
        except _OTHER_SERVER as error:
            if connection is not None and isinstance(error, exceptions.ReadOnlyError):  # a replica now
                connection.close()
        return await self._client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def open_to_server_of(self, key: str) -> DirectConnection | None:
        """Return the connection to the server that has `key` if it is open, else None; open none.

        Return None also if no server has the key now.
        """
        try:
            name, _ = await self._server_of(key)
        except _OTHER_SERVER:  # no server has it now
            return None
        connection = self._connections.get(name)
        return connection if connection is not None and connection.is_open else None

    async def to_server_of(self, key: str) -> DirectConnection:
        """Return the connection to the server that has `key`; open it if it is not open.

        Raises:
            RedisError: the server cannot be connected.
            RedisClusterException: no master has the key.
        """
        name, make = await self._server_of(key)
        connection = self._connections.get(name)
        if connection is None or not connection.is_open:
            async with self._opening[name]:
                connection = self._connections.get(name)
                if connection is None or not connection.is_open:
                    connection = self._connections[name] = await _opened(make())
        return connection

    def close(self) -> None:
        """Close all connections; commands without a reply fail."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    async def _server_of(self, key: str) -> tuple[str, Callable[[], AbstractConnection]]:
        """Return the name of the server that has `key`, and a function that makes a connection to it.

        Outside a cluster, the name is empty. The connection that the function returns is not connected yet.
        """
        client = cast("Any", self._client)
        if not isinstance(client, RedisCluster):
            return "", client.connection_pool.make_connection
        await client.initialize()  # reads the slot map again, if that is necessary
        (node,) = await client.get_nodes_from_slot("EXISTS", key)
        return node.name, lambda: node.connection_class(**node.connection_kwargs)


async def _opened(connection: AbstractConnection) -> DirectConnection:
    await connection.connect()  # type: ignore[no-untyped-call]
    return DirectConnection(connection)
