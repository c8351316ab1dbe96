"""Copies in Redis: the rights that they need, and the texts that workers make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap.copier import publisher_of
from tests.tap.running import copying, forwarding
from tests.tap.wire import Call, chunk, exchange, request, upstream
from tests.users import DOES_WITHOUT, NodeWithUsers
from tests.waiting import wait_until
from tests.workers import texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from tap.copy_frames import CopierSettings


def delta(text: str) -> bytes:
    """Return a piece of a refusal."""
    return b'data: {"id":"c","choices":[{"index":0,"delta":{"refusal":"%s"}}]}\n\n' % text.encode()


END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


WHOLE = delta("I cannot ") + delta("help.") + END
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def settings(url: str, prefix: str, partitions: int = 0, budget: int = 16 * 2**20) -> CopierSettings:
    """Return settings of a copier."""
    return {
        "redis_url": url,
        "redis_mode": "standalone",
        "prefix": prefix,
        "partitions": partitions,
        "budget": budget,
        "max_event_bytes": 1024 * 1024,
    }


async def test_the_user_producer_has_the_rights_of_a_tap(tmp_path: Path) -> None:
    """Publish as the user of deploy/users.acl, with and without partitions: the server refuses nothing."""

    async def answer(call: Call) -> None:
        await call.stream([delta("No."), END])

    server = NodeWithUsers(tmp_path / "server", "embedded")
    await server.start()
    try:
        for partitions in (0, 16):
            publisher = publisher_of(settings(server.url_of("producer"), "deltaloom", partitions))
            async with (
                upstream(answer) as up,
                copying(publisher) as pipe,
                forwarding(up.url, pipe=pipe) as tap,
            ):
                assert (await exchange(tap.port, request())).is_whole
            books = publisher.counters
            assert (books.failures, books.dropped) == ({}, {})
            assert books.seen == books.published + books.merged > 0
        assert await server.refused() <= DOES_WITHOUT
    finally:
        await server.kill()


async def test_a_copy_that_loses_a_piece_is_never_verified(redis: Redis, redis_url: str, prefix: str) -> None:
    """Drop a piece in the middle of one copy of two: its text ends as interrupted, the other is verified."""
    lost, first = delta("x" * 300_000), delta("I cannot ")

    async def answer(call: Call) -> None:
        await call.send(OK, chunk(first))
        await wait_until(lambda: pipe.sent_bytes % len(WHOLE) == len(first), message="it is in the copy")
        await call.send(*[chunk(lost)] * (b"/lossy" in call.head), chunk(delta("help.") + END), b"0\r\n\r\n")

    publisher = publisher_of(settings(redis_url, prefix))
    async with workers_in_process(redis_url, prefix):
        async with (
            upstream(answer) as up,
            copying(publisher, limit=20_000) as pipe,
            forwarding(up.url, pipe=pipe) as tap,
        ):
            for path in ("/up/v1/chat/completions", "/up/lossy/v1/chat/completions"):
                answered = await exchange(tap.port, request(path))
                assert answered.body.endswith(END)
                assert (lost in answered.body) == ("lossy" in path)
                await wait_until(pipe.idle.is_set, message="the pipe has sent it")
            assert pipe.dropped_copies == {"buffer_full": 1}
            assert pipe.dropped_bytes.total() + pipe.sent_bytes == tap.counts.copied
        await wait_until_settled(redis, prefix)
        whole, cut = sorted(await texts(redis, prefix), key=lambda text: len(text.text), reverse=True)
    assert (whole.text, whole.status, whole.integrity) == ("I cannot help.", "completed", "verified")
    assert (cut.text, cut.status, cut.integrity) == ("I cannot ", "failed", "unverified")
    assert cut.reason == "stream_interrupted"


async def test_memory_is_bounded_for_a_thousand_streams() -> None:
    """Keep no more than the settings allow of 1,000 open streams while Redis is away; the books add up."""
    budget, limit = 64 * 1024, 256 * 1024
    publisher = publisher_of(settings("redis://127.0.0.1:1", "away", budget=budget))
    offered = most = 0
    async with copying(publisher, limit, publish_seconds=0.1) as pipe:
        bodies = [
            pipe.begin(
                {"translation": {"dialect": "openai.chat", "response_id": f"r{number}"}, "context": {}}
            )
            for number in range(1000)
        ]
        for _ in range(5):
            for body in bodies:
                body.piece(piece := delta("word " * 40))
                offered += len(piece)
                assert pipe.waiting_bytes < limit + 1000 * 20  # room for the ends
            await wait_until(pipe.idle.is_set, message="the copier has all that fits")
            most = max(most, publisher.counters.waiting_bytes)
        for body in bodies:
            body.end("complete")
    assert pipe.dropped_bytes.total() > 0
    assert pipe.sent_bytes + pipe.dropped_bytes.total() == offered
    assert 0 < most <= budget
    books = publisher.counters
    assert books.seen == books.merged + sum(books.dropped.values())
