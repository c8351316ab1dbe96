"""Answers and requests that pass through the tap, next to direct ones."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tap.upstreams import Upstream
from tests import certificates
from tests.client.dialects.streams import SAMPLES, body_of
from tests.tap.running import forwarding
from tests.tap.wire import Call, chunk, exchange, parsed, request, upstream
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def bodies() -> Iterator[tuple[str, list[bytes]]]:
    """Yield streams in pieces: samples, and recordings in the folders that the variables name.

    A recording is divided at its lines, as it came.
    """
    for name, sample in list(SAMPLES.items())[:: 1 if "RECORDED_STREAMS" in os.environ else 12]:
        yield name, body_of(sample).splitlines(keepends=True)
    for variable in ("RECORDED_STREAMS", "RECORDED_DIALECTS"):
        for file in sorted(Path(os.environ.get(variable, "/none")).glob("*.*s*")):
            yield file.name, file.read_bytes().splitlines(keepends=True)


def divided(data: bytes, chance: random.Random) -> list[bytes]:
    """Return data in pieces of any size."""
    cuts = sorted(chance.choices(range(len(data) + 1), k=chance.randrange(1, 30)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


async def test_bytes_are_identical_at_any_boundaries() -> None:
    """Pass streams through at their own boundaries and at random ones: the client gets the same bytes."""
    chance = random.Random(18)
    current: list[bytes] = []

    async def answer(call: Call) -> None:
        await call.stream(current)

    async with upstream(answer) as up, forwarding(up.url) as tap:
        expected = 0
        for name, own in bodies():
            for pieces in (own, divided(b"".join(own), chance)):
                current[:] = pieces
                direct = await exchange(up.port, request("/v1/chat/completions"))
                tapped = await exchange(tap.port, request())
                assert (tapped.body, tapped.is_whole) == (direct.body, True), name
                assert tapped.without(b"connection") == direct.headers
                expected += len(tapped.body)
        counts = tap.counts
        assert (counts.from_upstreams, counts.to_clients, counts.undelivered) == (expected, expected, 0)
        assert set(counts.requests) == {("up", "passed")}


ANSWERS = {
    "plain": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"X-A: 1\r\nx-a: 2\r\n\r\n{}",
    "error": b"HTTP/1.1 429 Slow Down Please\r\nRetry-After: 3\r\nContent-Length: 5\r\n\r\nlater",
    "odd status": b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n",
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\nX-Id: 7\r\n\r\n",
    "not modified": b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "cookies": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    "dated": b"HTTP/1.1 200 OK\r\nDate: yesterday\r\nServer: other\r\nContent-Length: 1\r\n\r\nx",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 23\r\n\r\n"
    + gzip.compress(b"abc", mtime=0),
    "no gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone",
    "text": "HTTP/1.1 200 OK\r\nX-Name: Ångström\r\nContent-Length: 0\r\n\r\n".encode(),
    "hops": b"HTTP/1.1 200 OK\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
    b"Content-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_status_and_headers_pass_unchanged(name: str) -> None:
    """Compare heads line by line, with case, order and repeats; only hop-by-hop headers are left out."""
    head, _, body = ANSWERS[name].partition(b"\r\n\r\n")
    status_line, *headers = head.split(b"\r\n")
    hops = (b"connection", b"keep-alive", b"x-hop")
    expected = [line for line in headers if line.partition(b":")[0].lower() not in hops]

    async def answer(call: Call) -> None:
        await call.send(head + b"\r\n\r\n" + (b"" if call.head.startswith(b"HEAD") else body))

    async with upstream(answer) as up, forwarding(up.url) as tap:
        for method, received in (("POST", body), ("HEAD", b"")):
            tapped = await exchange(tap.port, request(method=method))
            assert (tapped.status_line, tapped.without(b"connection")) == (status_line, expected)
            assert tapped.body == received


async def test_a_body_that_ends_with_its_connection_is_whole() -> None:
    """Frame an HTTP/1.0 answer anew."""

    async def answer(call: Call) -> None:
        await call.send(
            b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n", b"data: 2\n\n"
        )
        call.writer.close()

    async with upstream(answer) as up, forwarding(up.url) as tap:
        tapped = await exchange(tap.port, request())
    assert (tapped.body, tapped.is_whole) == (b"data: 1\n\ndata: 2\n\n", True)


async def test_requests_pass_unchanged() -> None:
    """Compare what the upstream gets with what the client sent, apart from the connection's own headers."""

    async def answer(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    headers = (
        "authorization: Bearer key",
        "X-B: 1",
        "x-b: 2",
        "Accept-Encoding: br",
        "TE: trailers",
        "X-Hop: 1",
        "Connection: X-Hop",
    )
    own = ("X-Deltaloom-Tenant: acme", "X-DELTALOOM-REFERENCE: r", "x-deltaloom-safety-identifier: u")
    async with upstream(answer) as up, forwarding(f"{up.url}/base") as tap:
        for method, body in (
            ("POST", b"a" * 300_000),
            ("GET", b""),
            ("DELETE", b""),
            ("PATCH", b"x"),
            ("PUT", b""),
        ):
            data = request("/up/v1/%7Ea?key=%20b&c=", *headers, *own, method=method, body=body)
            assert (await exchange(tap.port, data)).status == 200
            got = up.calls.pop()
            line, *lines = got.head.removesuffix(b"\r\n\r\n").split(b"\r\n")
            assert line == f"{method} /base/v1/%7Ea?key=%20b&c= HTTP/1.1".encode()
            framing = [b"Content-Length: %d" % len(body)] if body or method in {"DELETE", "PUT"} else []
            expected = [each.encode().replace(b"x-b", b"X-B") for each in headers[:4]]
            assert lines == [f"Host: 127.0.0.1:{up.port}".encode(), *expected, *framing]
            assert got.body == body


async def test_chunked_uploads_and_expectations() -> None:
    """Pass a chunked body on as it comes, and send 100 to a client that expects it before the body."""

    async def answer(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with upstream(answer) as up, forwarding(up.url) as tap:
        body = chunk(b"abc") + chunk(b"de") + b"0\r\n\r\n"
        data = request("/up/x", "Transfer-Encoding: chunked", "Expect: 100-continue", body=body)
        assert (await exchange(tap.port, data)).status == 200
        (call,) = up.calls
        assert call.body == b"abcde"
        assert b"expect" not in call.head.lower()
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(b"POST /up/x HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        await reader.readline()
        writer.write(b"x")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()


async def test_a_body_that_breaks_after_its_beginning_is_refused() -> None:
    """Refuse a request at once if the framing of its body breaks, and never end it upstream."""
    rest = asyncio.Event()
    received = bytearray()

    async def answer(call: Call) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            received.extend(await call.reader.readuntil(b"abc\r\n"))
            rest.set()
            received.extend(await call.reader.read())

    async with upstream(answer, reads_bodies=False) as up, forwarding(up.url) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(request("/up/x", "Transfer-Encoding: chunked", body=chunk(b"abc")))
        await rest.wait()
        writer.write(b"zz\r\n")
        answered = parsed(await reader.read())
        writer.close()
        assert (answered.status, answered.is_whole) == (400, True)
        assert await tap.outcome() == {("up", "bad_body"): 1}
        await wait_until(lambda: not up.connections, message="the upstream's connection is closed")
    assert bytes(received) == chunk(b"abc")


async def test_a_path_that_leaves_that_of_its_upstream_is_refused() -> None:
    """Answer 400, and connect to nothing."""
    async with forwarding("http://127.0.0.1:1/v1") as tap:
        assert (await exchange(tap.port, request("/up/../admin"))).status == 400
        assert await tap.outcome() == {("", "bad_target"): 1}


async def test_each_piece_comes_at_once() -> None:
    """Send the next piece only after the client has the one before: nothing is held back."""
    seen = asyncio.Event()

    async def answer(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            seen.clear()
            await call.send(chunk(b"piece %d" % number))
            await seen.wait()
        await call.send(b"0\r\n\r\n")

    async with upstream(answer) as up, forwarding(up.url) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(request())
        for number in range(3):
            await reader.readuntil(b"piece %d" % number)
            seen.set()
        writer.close()


async def test_the_upstream_ends_when_the_client_leaves() -> None:
    """Close the connection to the upstream, before and during its answer, and count the request."""
    closed: list[bytes] = []
    going = asyncio.Event()

    async def answer(call: Call) -> None:
        if b"/silent" not in call.head:
            await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"begun"))
        going.set()
        await call.closed()
        closed.append(call.head.split(b" ", 2)[1])

    async with upstream(answer) as up, forwarding(up.url) as tap:
        for path in ("/silent", "/begun"):
            going.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", tap.port)
            writer.write(request(f"/up{path}"))
            await going.wait()
            writer.close()
            await wait_until(partial(closed.count, path.encode()), message=f"{path} is closed")
        assert await tap.outcome(2) == {("up", "client_left"): 2}
        assert not tap.forwarder.exchanges


async def test_a_slow_client_slows_the_upstream() -> None:
    """Buffer no more than the sockets while a client reads nothing; close it if that lasts."""
    sent = 0

    async def answer(call: Call) -> None:
        nonlocal sent
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await call.send(chunk(b"x" * 65536))
            sent += 65536

    async with upstream(answer) as up, forwarding(up.url, tap_client_timeout=0.3) as tap:
        _, writer = await asyncio.open_connection("127.0.0.1", tap.port, limit=1024)
        writer.write(request())
        assert await tap.outcome() == {("up", "client_stalled"): 1}
        assert sent < 32 * 2**20  # what the sockets of this machine hold, however much the upstream has
        assert tap.counts.to_clients + tap.counts.undelivered == tap.counts.from_upstreams
        writer.close()


@pytest.mark.parametrize("end", [b"", b"5\r\nab", b"zz\r\n"])
async def test_a_broken_answer_is_broken_for_the_client(end: bytes) -> None:
    """Never end an answer that its upstream did not end, nor one with malformed chunks."""
    begun = asyncio.Event()

    async def answer(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"begun"))
        await begun.wait()
        await call.send(end)
        call.writer.close()

    async with upstream(answer) as up, forwarding(up.url) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(request())
        await reader.readuntil(b"begun\r\n")
        begun.set()
        assert b"0\r\n\r\n" not in await reader.read()
        assert await tap.outcome() == {("up", "broken_off"): 1}
        writer.close()


@pytest.mark.parametrize(
    ("head", "status", "outcome"),
    [
        (b"", 502, "upstream_failed"),
        (b"nonsense\r\n\r\n", 502, "upstream_failed"),
        (b"HTTP/1.1 200 OK\r\nA: \xe9\r\nContent-Length: 0\r\n\r\n", 502, "bad_answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(5000)), 502, "upstream_failed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, 502, "upstream_failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 502, "upstream_failed"),
    ],
)
async def test_a_hostile_head_is_refused(head: bytes, status: int, outcome: str) -> None:
    """Answer 502 for heads without end, with bytes that are not UTF-8, or with two lengths."""

    async def answer(call: Call) -> None:
        await call.send(head)
        call.writer.close()

    async with upstream(answer) as up, forwarding(up.url) as tap:
        assert (await exchange(tap.port, request())).status == status
        assert await tap.outcome() == {("up", outcome): 1}


async def test_a_fault_of_the_tap_is_logged_by_its_place(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Answer 500, and log the class and the line of an error, but not its words, which may be secret."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    async with forwarding("http://127.0.0.1:1") as tap:
        monkeypatch.setattr(tap.forwarder, "_check", fail)
        answered = await exchange(tap.port, request())
    assert answered.status == 500
    output = "".join(capfd.readouterr())
    assert "request failed" in output
    assert f"{Path(__file__).name}:" in output
    assert "secret" not in output + repr(answered)
    assert tap.counts.requests == {("up", "failed"): 1}


async def test_an_upstream_that_is_away_or_silent() -> None:
    """Answer 502 without a connection, and 504 after the upstream's own timeout."""

    async def answer(call: Call) -> None:
        await call.closed()

    async with upstream(answer) as up:
        tables = {
            "away": Upstream(url="http://127.0.0.1:1"),
            "silent": Upstream(url=up.url, idle_timeout=0.2),
        }
        async with forwarding(tables=tables) as tap:
            assert (await exchange(tap.port, request("/away/"))).status == 502
            assert (await exchange(tap.port, request("/silent/"))).status == 504


async def test_tls_is_verified_and_served(tmp_path: Path) -> None:
    """Refuse an upstream with an untrusted certificate, and accept one whose authority its table names."""
    made = certificates.make(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(made.certificate, made.key)

    async def answer(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with upstream(answer, server) as up:
        url = up.url.replace("http", "https")
        tables = {"no": Upstream(url=url), "yes": Upstream(url=url, ca_file=made.certificate)}
        async with forwarding(tables=tables) as tap:
            tap.forwarder.upstreams.targets["yes"].trust()
            assert (await exchange(tap.port, request("/no/"))).status == 502
            assert (await exchange(tap.port, request("/yes/"))).status == 200
            assert len(up.calls) == 1
