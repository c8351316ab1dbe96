"""Upstreams that attack the tap, or break the rules of HTTP."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

import pytest

from tests.tap.running import copying, forwarding
from tests.tap.test_copying import CountingRecorder
from tests.tap.wire import Call, chunk, exchange, request, upstream
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 2\r\n\r\nhi"
EVIL = OK + b"Content-Length: 4\r\n\r\nevil"

ODD = {
    "hints": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO,
        200,
        b"hi",
    ),
    "trailers": (
        OK + b"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n",
        *(200, b"hi"),
    ),
    "a folded header": (OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi"),
    "a tunnel": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n", 502, None),
    "a length and chunks": (
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        *(502, None),
    ),
    "another coding": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 502, None),
    "a second answer": (HELLO + EVIL, 200, b"hi"),
    "a second answer after chunks": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + EVIL,
        *(200, b"hi"),
    ),
    "a body after no content": (b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", 502, None),
}


async def test_odd_answers_are_passed_on_as_http_or_refused() -> None:
    """Pass on what has one meaning; the next request of another client gets its own answer."""
    current = b""

    async def answer(call: Call) -> None:
        await call.send(current)

    async with upstream(answer) as up, forwarding(up.url) as tap:
        for name, (data, status, body) in ODD.items():
            current = data
            answered = await exchange(tap.port, request())
            assert answered.status == status, name
            if body is None:
                assert b"Server: deltaloom-tap" in answered.headers, name
            else:
                assert (answered.body, answered.is_whole) == (body, True), name
                headers = answered.without(b"connection", b"content-length")
                assert set(headers) <= {b"Transfer-Encoding: chunked", b"X: a b"}, name
            current = HELLO
            assert (await exchange(tap.port, request())).body == b"hi", name


@pytest.mark.parametrize("late", [EVIL, b"HTTP/1.1 200"])
async def test_what_an_idle_upstream_sends_answers_nobody(late: bytes) -> None:
    """Never take bytes that came between two requests as the answer to the second one, of another client."""
    sent = asyncio.Event()

    async def answer(call: Call) -> None:
        await call.send(HELLO)
        if b"/first" in call.head:
            await go_on.wait()
            await call.send(late)
            sent.set()

    go_on = asyncio.Event()
    async with upstream(answer) as up, forwarding(up.url) as tap:
        assert (await exchange(tap.port, request("/up/first"))).body == b"hi"
        session = tap.forwarder._session  # noqa: SLF001 - the pool, to see when the bytes have come
        assert session is not None
        (((connection, _),),) = session.connector._conns.values()  # type: ignore[union-attr]  # noqa: SLF001
        go_on.set()
        await sent.wait()
        has_come: Callable[[], bool] = lambda: connection.should_close  # noqa: E731
        await wait_until(has_come, message="the tap has read them")
        answered = await exchange(tap.port, request("/up/second"))
        assert (answered.status, answered.body) == (200, b"hi")
        assert [call.head.split()[1] for call in up.calls] == [b"/first", b"/second"]


async def test_hints_without_end_hold_one_client_only() -> None:
    """Wait for an answer as long as its client does, and then disconnect the upstream."""

    async def answer(call: Call) -> None:
        while True:
            await call.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100)
            await asyncio.sleep(0)

    async with upstream(answer) as up, forwarding(up.url) as tap:
        _, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(request())
        await wait_until(lambda: up.calls, message="it is asked")
        writer.close()
        assert await tap.outcome() == {("up", "client_left"): 1}
        await wait_until(lambda: not up.connections, message="it is disconnected")


async def test_bombs_and_tiny_chunks_are_copied_in_bounded_memory() -> None:
    """Pass 100,000 chunks, and 10 MB of zeros in gzip as they came; only the copy decompresses them."""
    bomb = gzip.compress(b"\0" * 10_000_000, 9)
    recorder = CountingRecorder()
    tiny = b"".join(map(chunk, (b"data: x\n\n"[at : at + 1] for at in range(9)))) * 1112
    kind = OK + b"Content-Type: text/event-stream\r\n"

    async def answer(call: Call) -> None:
        if b"/bomb" in call.head:
            await call.send(kind + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb), bomb)
        else:
            await call.send(kind + b"Transfer-Encoding: chunked\r\n\r\n", *[tiny] * 10, b"0\r\n\r\n")

    async with upstream(answer) as up, copying(recorder) as pipe, forwarding(up.url, pipe=pipe) as tap:
        assert (await exchange(tap.port, request("/up/bomb/v1/chat/completions"))).body == bomb
        body = (await exchange(tap.port, request())).body
        assert body == b"data: x\n\n" * 11_120
        assert tap.counts.copied == len(bomb) + len(body)
    assert [stream.ended for stream in recorder.streams] == [1, 1]
    assert sum(len(repr(event)) for stream in recorder.streams for event in stream.events) < 10_000
