"""Clients that attack the tap."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests import certificates
from tests.tap.running import forwarding
from tests.tap.wire import Call, chunk, exchange, request, upstream
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.tap.running import Running
    from tests.tap.wire import WiredUpstream


async def ok(call: Call) -> None:
    """Answer 200."""
    await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
async def sides() -> AsyncIterator[tuple[WiredUpstream, Running]]:
    """Yield an upstream, and a tap in front of it with small limits."""
    limits: dict[str, Any] = {
        "tap_max_body_bytes": 2000,
        "tap_max_header_bytes": 2000,
        "tap_max_connections": 3,
    }
    async with upstream(ok) as up, forwarding(up.url, tap_client_timeout=0.3, **limits) as tap:
        yield up, tap


LENGTHS = "POST /up/ HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n"
REFUSED = {
    "unknown upstream": (request("/other/v1"), 404),
    "another host in the target": (
        b"GET http://127.0.0.1:1/up/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
        404,
    ),
    "a tunnel": (b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 404),
    "a WebSocket": (request("/up/", "Upgrade: websocket", method="GET", body=b""), 501),
    "two lengths": (
        b"POST /up/ HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        400,
    ),
    "length and chunks": (
        (
            b"POST /up/ HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /"
        ),
        400,
    ),
    "chunked, but not last": (
        b"POST /up/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a signed length": (LENGTHS.format("+5").encode() + b"hello", 400),
    "a space before the colon": (b"POST /up/ HTTP/1.1\r\nHost: t\r\nContent-Length : 5\r\n\r\nhello", 400),
    "a folded header": (b"GET /up/ HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\nConnection: close\r\n\r\n", 400),
    "a null in a header": (b"GET /up/ HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n", 400),
    "bytes that are no text": (b"GET /up/ HTTP/1.1\r\nHost: t\r\nX: \xe9\r\nConnection: close\r\n\r\n", 400),
    "bytes in the target": (b"GET /up/\xe9 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 400),
    "a long header": (request("/up/", "X: " + "x" * 3000), 400),
    "many headers": (request("/up/", *["X: x"] * 500), 400),
    "a long target": (request("/up/" + "x" * 3000), 400),
    "a large body": (request(body=b"x" * 2001), 413),
    "a large chunked body": (
        request("/up/", "Transfer-Encoding: chunked", body=chunk(b"x" * 2001) + b"0\r\n\r\n"),
        413,
    ),
    "a bad chunk": (request("/up/", "Transfer-Encoding: chunked", body=b"zz\r\n"), 400),
    "a body that does not come": (LENGTHS.format(9).encode() + b"x", 408),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(sides: tuple[WiredUpstream, Running], name: str) -> None:
    """Answer it without sending a whole request to the upstream; then serve the next one."""
    up, tap = sides
    data, status = REFUSED[name]
    assert (await exchange(tap.port, data)).status == status
    assert up.calls == []
    assert (await exchange(tap.port, request())).status == 200


def chunked(body: bytes, *headers: str) -> bytes:
    """Return a request with a chunked body."""
    return request("/up/", "Transfer-Encoding: chunked", *headers, body=body)


def headed(*lines: str, first: str = "POST /up/ HTTP/1.1") -> bytes:
    """Return a request with these lines as its head, and the body `hi`."""
    return "\r\n".join([first, *lines, "", ""]).encode() + b"hi"


MALFORMED = {
    "no name of a host": (headed("X: 1"), 400),
    "two names of hosts": (headed("Host: a", "Host: b"), 400),
    "lines without CR": (b"GET /up/ HTTP/1.1\nHost: t\n\n", 400),
    "a CR in a header": (headed("Host: t", "X: a\rb"), 400),
    "a header that begins with a space": (headed(" X: a", "Host: t"), 400),
    "a header without a name": (headed("Host: t", ": a"), 400),
    "a repeated length": (headed("Host: t", "Content-Length: 2", "Content-Length: 2"), 400),
    "a list of lengths": (headed("Host: t", "Content-Length: 2, 2"), 400),
    "an empty length": (headed("Host: t", "Content-Length:"), 400),
    "a negative length": (headed("Host: t", "Content-Length: -2"), 400),
    "a hexadecimal length": (headed("Host: t", "Content-Length: 0x2"), 400),
    "an endless length": (headed("Host: t", "Content-Length: " + "9" * 50), 400),
    "chunked twice": (headed("Host: t", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    "a coding that is no chunked": (headed("Host: t", "Transfer-Encoding: xchunked"), 400),
    "a coding after a tab": (headed("Host: t", "Transfer-Encoding: \x0bchunked"), 400),
    "identity and a length": (headed("Host: t", "Transfer-Encoding: identity", "Content-Length: 2"), 400),
    "chunks without CR": (chunked(b"2\nhi\n0\n\n"), 400),
    "a negative chunk": (chunked(b"-2\r\nhi\r\n0\r\n\r\n"), 400),
    "a prefixed chunk": (chunked(b"0x2\r\nhi\r\n0\r\n\r\n"), 400),
    "an endless chunk": (chunked(b"f" * 20 + b"\r\nhi"), 400),
    "a line in an extension of a chunk": (chunked(b"2;a\nb\r\nhi\r\n0\r\n\r\n"), 400),
    "HTTP/1.2": (headed("Host: t", first="POST /up/ HTTP/1.2"), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /up/\r\n\r\n", 505),
    "another coding": (
        request("/up/", "Transfer-Encoding: gzip, chunked", body=chunk(b"hi") + b"0\r\n\r\n"),
        501,
    ),
    "another tunnel": (headed("Host: t", "Connection: upgrade", "Upgrade: tcp", "Content-Length: 2"), 501),
    "a fragment": (request("/up/x#y"), 400),
    "an encoded name": (request("/u%70/x"), 404),
    "two slashes": (request("//up/x"), 404),
    "a path through another name": (request("/other/../up/x"), 404),
    "a name with a port": (request("/up:99/x"), 404),
    "a name with a host": (request("/up@127.0.0.1/x"), 404),
    "a target of asterisks": (request("*", method="OPTIONS", body=b""), 404),
}


async def test_malformed_requests_are_refused(sides: tuple[WiredUpstream, Running]) -> None:
    """Answer and count each, and send nothing to the upstream."""
    up, tap = sides
    for number, (name, (data, status)) in enumerate(MALFORMED.items(), 1):
        answered = await exchange(tap.port, data)
        assert answered.status == status, name
        assert json.loads(answered.body)["error"]["type"] == "tap_error", name
        assert sum(tap.counts.requests.values()) == number, name
    assert up.calls == []


PASSED = {
    "another host in the path": (request("/up//evil.test/x"), b"POST //evil.test/x", b"{}"),
    "a user in the path": (request("/up/@evil.test/"), b"POST /@evil.test/", b"{}"),
    "encoded slashes": (request("/up/a%2F..%2fb"), b"POST /a%2F..%2fb", b"{}"),
    "dots": (request("/up/../%2e%2e/x"), b"POST /../%2e%2e/x", b"{}"),
    "a name alone": (request("/up?a=/../b"), b"POST /?a=/../b", b"{}"),
    "HTTP/1.0": (headed("Content-Length: 2", first="POST /up/ HTTP/1.0"), b"POST /", b"hi"),
    "a length that a proxy may remove": (
        headed("Host: t", "Content-Length: 2", "Connection: close, Content-Length"),
        b"POST /",
        b"hi",
    ),
    "an extension and a trailer": (chunked(b"2;a=b\r\nhi\r\n0\r\nX-Hop: 1\r\n\r\n"), b"POST /", b"hi"),
    "tenants": (request("/up/", "X-Deltaloom-Tenant: hop", "x-deltaloom-TENANT: hop"), b"POST /", b"{}"),
    "an unknown expectation": (request("/up/", "Expect: hop"), b"POST /", b"{}"),
    "credentials for a proxy": (request("/up/", "Proxy-Authorization: hop"), b"POST /", b"{}"),
}


async def test_odd_requests_reach_their_own_upstream_only(sides: tuple[WiredUpstream, Running]) -> None:
    """Pass the target unchanged, frame the body anew, and leave out what is for one connection."""
    up, tap = sides
    for name, (data, target, body) in PASSED.items():
        assert (await exchange(tap.port, data)).status == 200, name
        call = up.calls.pop()
        line, host, *_ = call.head.split(b"\r\n")
        assert (line, host) == (target + b" HTTP/1.1", b"Host: 127.0.0.1:%d" % up.port), name
        assert call.body == body, name
        assert b"hop" not in call.head.lower(), name


async def test_a_connection_goes_on_after_an_upgrade_that_is_ignored(
    sides: tuple[WiredUpstream, Running],
) -> None:
    """Answer both requests of a client that offers HTTP/2 with each, as Java's does."""
    up, tap = sides
    reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
    lines = ("Host: t", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: a")
    for _ in range(2):
        writer.write(headed(*lines, "Content-Length: 2"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    assert [call.body for call in up.calls] == [b"hi", b"hi"]
    assert b"upgrade" not in up.calls[0].head.lower()


async def test_a_huge_upload_is_passed_on_as_its_upstream_reads() -> None:
    """Hold no more of an upload than sockets do, and pass on an answer that comes before its end."""
    begun, enough = asyncio.Event(), asyncio.Event()

    async def answer(call: Call) -> None:
        begun.set()
        await enough.wait()
        await call.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")
        await call.closed()

    async with upstream(answer, reads_bodies=False) as up, forwarding(up.url) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(LENGTHS.format(100_000_000).encode() + b"x" * 50_000_000)
        await begun.wait()
        waiting = writer.transport.get_write_buffer_size
        seen = [-1]

        def is_stuck() -> bool:
            seen.append(waiting())
            return len(seen) > 5 and len(set(seen[-5:])) == 1

        await wait_until(is_stuck, message="nothing moves any more")
        assert tap.counts.from_clients < 20_000_000
        assert waiting() > 20_000_000
        enough.set()
        assert (await reader.readuntil(b"no")).startswith(b"HTTP/1.1 401 No\r\n")
        writer.transport.abort()
        assert await tap.outcome() == {("up", "passed"): 1}


async def test_two_requests_of_one_connection_stay_two(sides: tuple[WiredUpstream, Running]) -> None:
    """Cut a body at its length: what follows is the next request, and never part of the first one."""
    up, tap = sides
    inner = request("/up/inner")
    await exchange(tap.port, LENGTHS.format(3).encode() + b"abc" + inner)
    assert [(call.head.split()[1], call.body) for call in up.calls] == [(b"/", b"abc"), (b"/inner", b"{}")]


@pytest.mark.parametrize("piece", [b"GET /up/", b"GET /up/ HTTP/1.1\r\nX: "])
async def test_a_head_that_never_ends_is_cut(sides: tuple[WiredUpstream, Running], piece: bytes) -> None:
    """Close a connection whose head trickles in when its time is over."""
    _, tap = sides
    reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
    writer.write(piece)

    async def cut() -> bool:
        writer.write(b"x")
        try:
            return await asyncio.wait_for(reader.read(1), 0.05) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    await wait_until(cut, 10, message="the connection is closed")
    writer.close()


async def test_connections_are_limited(sides: tuple[WiredUpstream, Running]) -> None:
    """Close the fourth of three connections, and count it."""
    _, tap = sides
    held = [await asyncio.open_connection("127.0.0.1", tap.port) for _ in range(3)]
    reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
    with suppress(ConnectionError):
        assert await reader.read() == b""
    assert tap.counts.connections_refused == 1
    for _, each in [*held, (reader, writer)]:
        each.close()


async def test_a_body_that_trickles_is_cut() -> None:
    """Answer 408 when the time for a whole body is over, although a byte comes again and again."""
    limits: dict[str, Any] = {"tap_client_timeout": 30, "tap_body_timeout": 0.3}
    async with upstream(Call.closed, reads_bodies=False) as up, forwarding(up.url, **limits) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(LENGTHS.format(1_000_000).encode())
        answer = asyncio.create_task(reader.readuntil(b"\r\n"))

        async def cut() -> bool:
            writer.write(b"x")
            done, _ = await asyncio.wait([answer], timeout=0.02)
            return bool(done)

        await wait_until(cut, 10, message="the answer has come")
        assert answer.result().startswith(b"HTTP/1.1 408 ")
        assert await tap.outcome() == {("up", "body_too_slow"): 1}
        writer.close()


async def test_an_upstream_that_reads_slowly_costs_its_client_no_time() -> None:
    """Pass a body on that waits for its upstream for longer than the client has."""
    go_on = asyncio.Event()

    async def answer(call: Call) -> None:
        await go_on.wait()
        await call.reader.readexactly(24_000_000)
        await ok(call)

    async with upstream(answer, reads_bodies=False) as up, forwarding(up.url, tap_body_timeout=1) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(LENGTHS.format(24_000_000).encode() + b"x" * 24_000_000)
        loop = asyncio.get_running_loop()
        began = loop.time()

        def is_late() -> bool:
            return loop.time() - began > 1.2

        await wait_until(is_late, 10, message="the time of the client would be over")
        go_on.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        writer.close()


@pytest.fixture
async def encrypted(tmp_path: Path) -> AsyncIterator[tuple[Running, ssl.SSLContext]]:
    """Yield a tap for three connections over TLS, and the context of a client that trusts it."""
    made = certificates.make(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made.certificate, made.key)
    limits: dict[str, Any] = {"tap_max_connections": 3, "tap_client_timeout": 30}
    async with upstream(ok) as up, forwarding(up.url, tls=tls, **limits) as tap:
        yield tap, ssl.create_default_context(cafile=str(made.certificate))


async def test_handshakes_are_connections(encrypted: tuple[Running, ssl.SSLContext]) -> None:
    """Refuse the fourth connection while three are in their handshakes; take it when one leaves."""
    tap, trusting = encrypted
    held = [await asyncio.open_connection("127.0.0.1", tap.port) for _ in range(3)]
    held[0][1].write(b"\x16\x03\x01")
    reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
    with suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    assert tap.counts.connections_refused == 1
    writer.close()
    held.pop()[1].close()

    async def is_served() -> bool:
        with suppress(ConnectionError, ssl.SSLError):
            return (await exchange(tap.port, request(), trusting)).status == 200
        return False

    await wait_until(is_served, message="the place of the client that has left is free")
    held[0][1].write(b"no TLS" * 100)
    with suppress(ConnectionError):
        await held[0][0].read()
    for _ in range(2):
        await wait_until(is_served, message="so is that of a client without TLS")
    for _, each in held:
        each.close()


async def test_a_handshake_that_never_ends_is_cut(tmp_path: Path) -> None:
    """Close a connection whose handshake does not come in time."""
    made = certificates.make(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made.certificate, made.key)
    async with upstream(ok) as up, forwarding(up.url, tls=tls, tap_client_timeout=0.2) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
