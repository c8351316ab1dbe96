"""Traffic and books while Redis or the copier is away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import Publisher
from embedded.free_ports import free_port
from tap.tap_app import TapApp
from tap.upstreams import Upstream, Upstreams
from tests.mortal import MortalServer
from tests.tap.running import assert_books, copying, forwarding, settings_of
from tests.tap.test_copying import CANARY
from tests.tap.wire import Call, chunk, exchange, request, upstream
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

PIECES = [
    *(
        b'data: {"id":"c","choices":[{"index":0,"delta":{"reasoning_content":"word %d "}}]}\n\n' % number
        for number in range(50)
    ),
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]
BODY = b"".join(PIECES)


async def stream(call: Call) -> None:
    """Answer with a stream."""
    await call.stream(PIECES)


@pytest.mark.parametrize("fault", ["dead", "hung", "full", "wrong password"])
async def test_traffic_does_not_notice_redis(tmp_path: Path, fault: str) -> None:
    """Pass streams whole while Redis is away; every event is counted as dropped."""
    redis = await MortalServer(tmp_path).start(*(("--maxmemory", "1") if fault == "full" else ()))
    url = redis.url.replace("//", "//nobody:wrong@") if fault == "wrong password" else redis.url
    if fault == "dead":
        await redis.kill()
    elif fault == "hung":
        redis.hang()
    publisher = Publisher(url, timeout=0.2, budget=64 * 1024)
    try:
        async with (
            upstream(stream) as up,
            copying(publisher, publish_seconds=0.1) as pipe,
            forwarding(up.url, pipe=pipe) as tap,
        ):
            answers = await asyncio.gather(*(exchange(tap.port, request()) for _ in range(20)))
            assert [answer.body for answer in answers] == [BODY] * 20
        books = publisher.counters
        assert tap.counts.copied == pipe.sent_bytes == 20 * len(BODY)
        assert books.seen == books.merged + sum(books.dropped.values()) > 20 * 50
        assert (books.published, books.waiting) == (0, 0)
    finally:
        if fault == "hung":
            redis.go_on()
        await redis.kill()


@asynccontextmanager
async def tapping(
    url: str, redis_url: str, prefix: str, shutdown_timeout: float = 5
) -> AsyncIterator[TapApp]:
    """Run a whole tap in this process, with its copier."""
    app = TapApp(
        settings_of(redis_url=redis_url, prefix=prefix, tap_shutdown_timeout=shutdown_timeout),
        Upstreams({"up": Upstream(url=url)}),
    )
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


async def test_streams_that_do_not_end_in_time_are_cut(redis: Redis, redis_url: str, prefix: str) -> None:
    """Stop within the configured time although an upstream goes on for ever; its copy ends as interrupted."""

    async def answer(call: Call) -> None:
        await call.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunk(PIECES[0]),
        )
        await call.closed()

    async with upstream(answer) as up, tapping(up.url, redis_url, prefix, shutdown_timeout=0.2) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        writer.write(request())
        await reader.readuntil(b"word 0")
        began = asyncio.get_running_loop().time()
        await app.stop()
        assert app.counts.requests == {("up", "stopped"): 1}
        assert asyncio.get_running_loop().time() - began >= 0.2
        writer.close()
    assert any(b"stream_interrupted" in entry[b"event"] for _, entry in await entries(redis, prefix))


async def test_a_copier_that_is_killed_is_started_again(redis: Redis, redis_url: str, prefix: str) -> None:
    """Lose copies, but no traffic; the next copier publishes again, and the books add up."""
    async with upstream(stream) as up, tapping(up.url, redis_url, prefix) as app:
        assert (await exchange(app.port, request())).body == BODY
        await wait_until(lambda: app.copier.figures().get("taken_bytes") == len(BODY), message="it was taken")
        app.copier.kill()
        await wait_until(lambda: not app.pipe.is_connected)
        assert (await exchange(app.port, request())).body == BODY
        await wait_until(lambda: app.pipe.is_connected)
        assert (await exchange(app.port, request())).body == BODY
        await wait_until(
            lambda: app.copier.figures().get("taken_bytes") == 2 * len(BODY), message="it was taken"
        )
    books = app.books()
    assert books["bytes_copied"] == 3 * len(BODY)
    assert books["bytes_sent_to_copier"] == books["copier"]["taken_bytes"] == 2 * len(BODY)
    assert (books["bytes_dropped"], books["copies_dropped"]) == (
        {"copier_gone": len(BODY)},
        {"copier_gone": 1},
    )
    assert_books(books)
    assert books["bytes_lost_with_copier"] == 0
    assert books["copier"]["seen"] > 2 * 50
    ends = [entry for _, entry in await entries(redis, prefix) if b"response.completed" in entry[b"event"]]
    assert len(ends) >= 1


async def entries(redis: Redis, prefix: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the published entries."""
    found: Any = await redis.xrange(f"{prefix}:deltas")
    return list(found)


async def test_sigterm_lets_streams_end_and_publishes_them(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Stop two processes at one port in the middle of a stream: it ends whole, and so does its copy.

    Their books add up, although a client has left, and no secret of a request is in any output.
    """
    go_on = asyncio.Event()
    secret = request(
        f"/up/v1/chat/completions?key={CANARY}", f"Authorization: Bearer {CANARY}", body=CANARY.encode()
    )

    async def answer(call: Call) -> None:
        await call.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunk(PIECES[0]),
        )
        await go_on.wait()
        await call.send(*map(chunk, PIECES[1:]), b"0\r\n\r\n")

    port, health, log = free_port(), free_port(), tmp_path / "log"
    async with upstream(answer) as up:
        file = tmp_path / "upstreams.toml"
        file.write_text(f'[upstreams.up]\nurl = "{up.url}"\n')
        environment = {
            **os.environ,
            "REDIS_URL": redis_url,
            "DELTALOOM_PREFIX": prefix,
            "DELTALOOM_TAP_LISTEN": f"127.0.0.1:{port}",
            "DELTALOOM_TAP_UPSTREAMS": str(file),
            "DELTALOOM_HTTP": f"127.0.0.1:{health}",
            "DELTALOOM_LOG_LEVEL": "debug",
        }
        with log.open("wb") as opened:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service", "tap", "--processes", "2"), env=environment, stderr=opened
            )
        try:
            await wait_until(lambda: log.read_text().count("tap started") == 2, 90, message="both listen")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(secret)
            received = await reader.readuntil(b"word 0")
            leaving, leaver = await asyncio.open_connection("127.0.0.1", port)
            leaver.write(secret)
            await leaving.readuntil(b"word 0")
            leaver.close()

            async def metrics_of_one() -> bytes | None:
                body = (await exchange(health, request("/metrics", method="GET", body=b""))).body
                return body if b"deltaloom_tap_open_requests 1.0" in body else None

            metrics = await wait_until(metrics_of_one, message="one client has left, and one is there")
            assert (await exchange(port, request("/metrics", method="GET", body=b""))).status == 404
            process.send_signal(signal.SIGTERM)
            await wait_until(lambda: "tap stopped" in log.read_text(), 60, message="the idle one has stopped")
            go_on.set()
            received += await reader.read()
            writer.close()
            assert received.endswith(b"[DONE]\n\n\r\n0\r\n\r\n")
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    stopped = [line for line in lines if line["event"] == "tap stopped"]
    for books in stopped:
        assert_books(books)
    assert sum(books["bytes_to_clients"] for books in stopped) == len(BODY) + len(PIECES[0])
    assert sum(books["copier"]["taken_bytes"] for books in stopped) == len(BODY) + len(PIECES[0])
    published = await entries(redis, prefix)
    for end in (b"response.completed", b"response.cancelled"):
        assert sum(end in entry[b"event"] for _, entry in published) == 1
    assert CANARY not in repr([metrics, lines, published])
