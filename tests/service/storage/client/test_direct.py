"""Test direct connections against a real server, and against one that answers badly."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis import exceptions

from deltaloom.address import Address
from service.storage.client.connection import client_of
from service.storage.client.direct import DirectConnection, DirectConnections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from redis.asyncio import Redis

    Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def connected(redis_url: str, **options: Any) -> AsyncIterator[DirectConnections]:
    """Open direct connections to a server."""
    client = client_of(Address.parse(redis_url), **options)
    connections = DirectConnections(client)
    try:
        yield connections
    finally:
        connections.close()
        await client.aclose()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_replies_come_in_the_order_of_the_commands(redis_url: str, protocol: int) -> None:
    """Commands of several tasks share the connection, and each gets its own reply."""
    async with connected(redis_url, protocol=protocol) as connections:
        connection = await connections.to_server_of("key")
        assert await connections.to_server_of("other") is connection
        replies = [connection.request(("ECHO", f"é{n}")) for n in range(1000)]
        assert await asyncio.gather(*replies) == [f"é{n}".encode() for n in range(1000)]


async def test_an_error_reply_fails_its_own_command(redis_url: str) -> None:
    """Errors have redis-py's classes, and the commands around them succeed."""
    async with connected(redis_url) as connections:
        connection = await connections.to_server_of("key")
        before, wrong, after = (connection.request(words) for words in (("PING",), ("NOPE",), ("PING",)))
        assert await before == await after == b"PONG"
        with pytest.raises(exceptions.ResponseError, match="unknown command"):
            await wrong
        with pytest.raises(exceptions.NoScriptError):
            await connections.execute(("EVALSHA", "0" * 40, 0), "key")


async def test_a_collector_gets_each_reply_and_its_error_is_raised(redis_url: str) -> None:
    """A collector gets the replies; its own error fails its command and no other."""
    collected: list[bytes] = []
    async with connected(redis_url) as connections:
        connection = await connections.to_server_of("key")
        some = [connection.request(("ECHO", str(n)), collected.append) for n in range(3)]
        failing = connection.request(("PING",), refuse)
        assert await asyncio.gather(*some) == [None] * 3
        with pytest.raises(ValueError, match="PONG"):
            await failing
        assert collected == [b"0", b"1", b"2"]
        assert await connection.request(("PING",)) == b"PONG"


async def test_a_command_that_cannot_be_sent_costs_no_other(redis_url: str) -> None:
    """Words that cannot be encoded raise an error before anything is sent."""
    async with connected(redis_url) as connections:
        connection = await connections.to_server_of("key")
        with pytest.raises(UnicodeEncodeError):
            connection.request(("ECHO", "\ud800"))
        assert await connection.request(("ECHO", "two")) == b"two"


def refuse(reply: object) -> None:
    """Raise an error, as a collector with a bug would."""
    raise ValueError(reply)


async def test_a_lost_connection_is_replaced(redis: Redis, redis_url: str) -> None:
    """A command on a lost connection goes through redis-py; the next one opens a new connection."""
    async with connected(redis_url) as connections:
        connection = await connections.to_server_of("key")
        number = await connection.request(("CLIENT", "ID"))
        waiting = connection.request(("BLPOP", "nothing", 0))
        await redis.client_kill_filter(_id=number)
        with pytest.raises(exceptions.ConnectionError, match="closed by server"):
            await waiting
        assert not connection.is_open
        with pytest.raises(exceptions.ConnectionError):
            await connection.request(("PING",))
        assert await connections.execute(("PING",), "key") == b"PONG"
        assert await (await connections.to_server_of("key")).request(("CLIENT", "ID")) != number


async def test_a_cancelled_command_leaves_its_reply_to_nobody(redis_url: str) -> None:
    """The reply of a cancelled command is dropped, and the next command gets its own."""
    async with connected(redis_url) as connections:
        connection = await connections.to_server_of("key")
        cancelled = connection.request(("ECHO", "one"))
        cancelled.cancel()
        assert await connection.request(("ECHO", "two")) == b"two"


async def test_a_server_that_does_not_answer_costs_the_timeout(redis: Redis, redis_url: str) -> None:
    """A command without a reply fails after the timeout of the URL; a longer wait can be allowed for."""
    key = f"{__name__}:nothing"
    async with connected(redis_url, socket_timeout=0.5) as connections:  # time enough to connect
        connection = await connections.to_server_of("key")
        assert await connection.request(("BLPOP", key, "0.7"), patience=30) is None
        waiting = connection.request(("BLPOP", key, 0))
        behind = connection.request(("PING",))
        for each in (waiting, behind):
            with pytest.raises(exceptions.TimeoutError):
                await each
        assert not connection.is_open
        assert await redis.ping()


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[int]:
    """Run a server that answers the commands of redis-py's log-in, and then as `answer` does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()
        await running.wait_closed()


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 200 OK\r\n\r\n", b"+OK\r\n+OK\r\n"])
async def test_what_is_no_reply_ends_the_connection(garbage: bytes) -> None:
    """Data that is not Redis's protocol, or a reply to no command, closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"ECHO" not in (data := await reader.read(1000)) and data:
            writer.write(b"+OK\r\n" * data.count(b"*"))
        writer.write(garbage)
        await reader.read()

    async with server(answer) as port, connected(f"redis://127.0.0.1:{port}?protocol=2") as connections:
        connection: DirectConnection = await connections.to_server_of("key")
        first = connection.request(("ECHO", "x"))
        await asyncio.wait({first}, timeout=30)
        if error := first.exception():  # the second kind answers this command
            assert "Protocol error" in str(error)
        with pytest.raises(exceptions.ConnectionError):
            await connection.request(("ECHO", "y"))
        assert not connection.is_open


async def test_a_reply_that_is_too_large_for_the_memory_fails_its_command(redis_url: str) -> None:
    """Otherwise the event loop would log a traceback, and the command wait for its timeout."""

    class Full:
        def feed(self, data: bytes) -> None:
            """Take the data."""

        def gets(self) -> None:
            raise MemoryError

    async with connected(redis_url) as connections:
        connection: Any = await connections.to_server_of("key")
        connection._parser = Full()  # noqa: SLF001 - hiredis has no other seam
        with pytest.raises(exceptions.ConnectionError, match="does not fit into the memory"):
            await connection.request(("PING",))
        assert not connection.is_open
        assert await connections.execute(("PING",), "key") == b"PONG"
