"""Raw HTTP for tests: an upstream that answers with bytes of the test, and a client that sends bytes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    Script = Callable[["Call"], Awaitable[None]]


@dataclass
class Call:
    """A request as an upstream gets it, and the connection for its answer."""

    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece on its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def stream(self, pieces: Iterable[bytes], content_type: str = "text/event-stream") -> None:
        """Send a chunked answer, each piece as one chunk."""
        await self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type.encode() + b"\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for piece in pieces:
            await self.send(chunk(piece))
            await asyncio.sleep(0)
        await self.send(b"0\r\n\r\n")

    async def closed(self) -> None:
        """Wait until the other side has closed the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


@dataclass
class WiredUpstream:
    """An upstream that runs."""

    port: int
    calls: list[Call] = field(default_factory=list)
    connections: set[asyncio.Task[None]] = field(default_factory=set)
    """The open connections."""

    @property
    def url(self) -> str:
        """The URL, without TLS."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def upstream(
    script: Script, tls: ssl.SSLContext | None = None, *, reads_bodies: bool = True
) -> AsyncIterator[WiredUpstream]:
    """Run an upstream that calls the script for each request, on as many connections as it gets.

    Args:
        script: answers a request.
        tls: the certificate; None for plain HTTP.
        reads_bodies: False to leave the bodies of requests to the script.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = b""
                while b"\r\nconnection: close" not in head.lower():
                    head = await reader.readuntil(b"\r\n\r\n")
                    call = Call(head, await _body(head, reader) if reads_bodies else b"", reader, writer)
                    running.calls.append(call)
                    await script(call)
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20, ssl=tls)
    running = WiredUpstream(server.sockets[0].getsockname()[1], connections=tasks)
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def chunk(data: bytes) -> bytes:
    """Return data as a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class RawAnswer(NamedTuple):
    """An answer as a client gets it."""

    status_line: bytes
    headers: list[bytes]
    """Lines of the head, as they came."""
    body: bytes
    """The body without its framing."""
    is_whole: bool
    """True if the body ended as its framing says."""

    @property
    def status(self) -> int:
        """The status."""
        return int(self.status_line.split()[1])

    def without(self, *names: bytes) -> list[bytes]:
        """Return the headers but these, given in lower case."""
        return [line for line in self.headers if line.partition(b":")[0].lower() not in names]


def request(
    path: str = "/up/v1/chat/completions", *headers: str, method: str = "POST", body: bytes = b"{}"
) -> bytes:
    """Return a request that ends its connection."""
    own = [f"{method} {path} HTTP/1.1", "Host: tap", "Connection: close", *headers]
    if body and not any(line.lower().startswith("transfer-encoding") for line in headers):
        own.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*own, "", ""]).encode() + body


async def exchange(port: int, data: bytes, tls: ssl.SSLContext | None = None) -> RawAnswer:
    """Send bytes to a server, and return its answer; the connection has to end with it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20, ssl=tls)
    try:
        writer.write(data)
        received = b""
        with suppress(ConnectionError):
            while piece := await reader.read(2**16):
                received += piece
        return parsed(received, is_head=data.startswith(b"HEAD "))
    finally:
        writer.close()


def parsed(received: bytes, *, is_head: bool = False) -> RawAnswer:
    """Return an answer that was received to the end of its connection."""
    head, _, rest = received.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100 "):
        head, _, rest = rest.partition(b"\r\n\r\n")
    status_line, *headers = head.split(b"\r\n")
    named = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in headers)}
    if named.get(b"transfer-encoding") == b"chunked" and not is_head:
        return RawAnswer(status_line, headers, *_unchunked(rest))
    length = int(named.get(b"content-length", len(rest)))
    return RawAnswer(status_line, headers, rest, is_head or length == len(rest))


def _unchunked(data: bytes) -> tuple[bytes, bool]:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return body, data == b"\r\n"
        body += data[:length]
        data = data[length + 2 :]
    return body, False


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read the body of a request."""
    named = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
    }
    if named.get(b"transfer-encoding") != b"chunked":
        return await reader.readexactly(int(named.get(b"content-length", 0)))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body
