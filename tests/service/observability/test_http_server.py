"""Test the HTTP server with a client that writes bytes, as a stranger could."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from service.observability import http_server
from service.observability.http_server import HttpServer
from service.observability.routes import Answer, HttpRequest, text
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GET = b"%s HTTP/1.1\r\nHost: a\r\n%s\r\n"


async def hello(request: HttpRequest) -> Answer:
    """Answer with the path, and a header in any case."""
    return text(f"{request.path} {request.headers.get('x-a')}")


async def fails(_: HttpRequest) -> Answer:
    """Fail with a text that nobody must see."""
    raise ValueError("secret")


async def hangs(_: HttpRequest) -> Answer:
    """Never answer."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


@asynccontextmanager
async def serving(within: float = 5.0) -> AsyncIterator[int]:
    """Serve these routes within the block; yield the port."""
    server = HttpServer({"/hello": hello, "/fails": fails, "/hangs": hangs}, within)
    try:
        yield await server.start("127.0.0.1", 0)
    finally:
        await server.stop()


async def sent(port: int, data: bytes) -> bytes:
    """Send bytes; return all that comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def got(port: int, request: bytes, headers: bytes = b"") -> tuple[int, bytes]:
    """Return the status and the body of a request such as `GET /livez`."""
    head, _, body = (await sent(port, GET % (request, headers))).partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


async def test_routes() -> None:
    """A route gets path and headers; HEAD has no body; other methods and paths are refused."""
    async with serving() as port:
        assert await got(port, b"GET /hello", b"X-A: b\r\n") == (200, b"/hello b\n")
        assert await got(port, b"HEAD /hello") == (200, b"")
        assert (await got(port, b"GET /hello/"))[0] == 404
        assert (await got(port, b"POST /hello"))[0] == 405


async def test_a_failure_is_not_told() -> None:
    """The error of a route is for the log alone."""
    async with serving() as port:
        assert await got(port, b"GET /fails") == (500, b"failed, see the log\n")


async def test_a_route_that_hangs() -> None:
    """A probe gets an answer in time, though a route has none."""
    async with serving(within=0.05) as port:
        assert (await got(port, b"GET /hangs"))[0] == 503


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
        GET % (b"GET /hello", b"A: " + b"a" * 5000 + b"\r\n"),
        GET % (b"GET /hello", b"A: a\r\n" * 200),
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ],
)
async def test_odd_requests_are_refused(data: bytes) -> None:
    """Long lines, many headers, and bytes that are no HTTP get 400, and the server goes on."""
    async with serving() as port:
        assert b" 400 " in (await sent(port, data))[:40]
        assert (await got(port, b"GET /hello"))[0] == 200


async def test_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections beyond the limit are closed at once, so that silent ones cannot use up memory."""
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(http_server, "CONNECTION_SECONDS", 600.0)
    async with serving() as port:
        silent = [asyncio.create_task(sent(port, b"")) for _ in range(6)]
        await wait_until(lambda: sum(each.done() for each in silent) == 4, message="four are closed")
    await asyncio.gather(*silent)


async def test_silent_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent connections are closed in time, and give their places to others."""
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(http_server, "CONNECTION_SECONDS", 0.3)
    async with serving() as port:
        await asyncio.gather(*(sent(port, b"") for _ in range(2)))
        monkeypatch.setattr(http_server, "CONNECTION_SECONDS", 600.0)
        assert (await got(port, b"GET /hello"))[0] == 200
