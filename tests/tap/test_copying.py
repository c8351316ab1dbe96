"""Copies of answers: the events that are published, and data that must never be."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from deltaloom import Publisher
from deltaloom.dialects import Translator
from tap.copier import publisher_of
from tap.copy_frames import CopyFrame, FrameReader
from tap.upstreams import Upstream
from tests.client.dialects.streams import SAMPLES, body_of
from tests.client.teeing.recorder import Recorder, with_id
from tests.tap.running import copying, forwarding
from tests.tap.wire import Call, RawAnswer, chunk, exchange, request, upstream
from tests.waiting import wait_until

brotli: Any = importlib.import_module("brotli")  # has no types

if TYPE_CHECKING:
    import pytest
    from redis.asyncio import Redis

    from tests.client.teeing.recorder import Recorded

CANARY = "sk-canary-7f3a"

PATHS = {
    "openai.chat": "/up/v1/chat/completions",
    "openai.responses": "/up/v1/responses",
    "anthropic.messages": "/up/v1/messages",
}


class CountingRecorder(Recorder):
    """A recorder that can be closed as a publisher is."""

    class counters:  # noqa: N801 - the publisher's attribute
        """Counts of a publisher that keeps everything."""

        seen = published = merged = waiting = waiting_bytes = entries = 0
        dropped: dict[str, int] = {}  # noqa: RUF012 - stays empty
        failures: dict[str, int] = {}  # noqa: RUF012 - stays empty

    def close(self, timeout: float | None = None) -> None:
        """Close it."""


async def copies_of(bodies: dict[str, tuple[str, list[bytes]]], *headers: str) -> dict[str, Recorded]:
    """Pass bodies through a tap at once, and return their copies, by the header with the tenant."""
    recorder = CountingRecorder()

    async def answer(call: Call) -> None:
        name = call.head.split(b"X-Case: ")[1].split(b"\r\n")[0].decode()
        await call.stream(bodies[name][1])

    async with (
        upstream(answer) as up,
        copying(recorder) as pipe,
        forwarding(up.url, pipe=pipe) as tap,
    ):
        await asyncio.gather(
            *(
                exchange(tap.port, request(path, f"X-Case: {name}", f"X-Deltaloom-Tenant: {name}", *headers))
                for name, (path, _) in bodies.items()
            )
        )
    return {str(stream.context["tenant"]): stream for stream in recorder.streams}


async def test_the_copy_is_what_the_translator_says_of_the_bytes() -> None:
    """Pass samples of three dialects at once, in small pieces: each copy has the events of its own bytes."""
    chosen = {
        f"case-{number}": (PATHS[sample.dialect], body_of(sample))
        for number, sample in enumerate(SAMPLES.values())
        if sample.dialect in PATHS
    }
    pieces = {
        name: (path, [body[at : at + 50] for at in range(0, len(body), 50)])
        for name, (path, body) in list(chosen.items())[::6]
    }
    copies = await copies_of(pieces)
    assert copies.keys() == pieces.keys()
    for name, (path, parts) in pieces.items():
        translator = Translator(path=path, content_type="text/event-stream", response_id="r")
        events = [event for part in parts for event in translator.feed(part)]
        assert with_id(copies[name]) == events + translator.end("complete"), name
        assert copies[name].ended == 1


async def test_nothing_of_a_request_is_in_the_copy(
    redis: Redis,
    redis_url: str,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Put a canary into headers, query and body of good and bad requests, and find it nowhere.

    Searched are the pipe to the copier, Redis, log lines, tracebacks, counts, and answers of the tap itself,
    which clients log.
    """
    queued: list[CopyFrame] = []
    feed = FrameReader.feed

    def seen(reader: FrameReader, data: bytes) -> list[CopyFrame]:
        frames = list(feed(reader, data))
        queued.extend(frames)
        return frames

    monkeypatch.setattr(FrameReader, "feed", seen)
    body = b'data: {"id":"c","choices":[{"index":0,"delta":{"refusal":"No."}}]}\n\n'

    async def answer(call: Call) -> None:
        if b"/broken" in call.head:
            await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: x" + CANARY.encode() + b"\r\n\r\n")
            call.writer.close()
        else:
            await call.stream([body])

    secret = (f"Authorization: Bearer {CANARY}", f"X-{CANARY}: {CANARY}", f"Cookie: {CANARY}")
    known = (
        "X-Deltaloom-Tenant: acme",
        "X-Deltaloom-Safety-Identifier: user-7",
        "X-Deltaloom-Reference: ticket",
    )
    publisher = Publisher(redis_url, prefix=prefix, linger=0)
    async with (
        upstream(answer) as up,
        copying(publisher) as pipe,
        forwarding(up.url, pipe=pipe, tap_max_body_bytes=1024) as tap,
    ):
        query = f"?key={CANARY}&{CANARY}"
        answers: list[RawAnswer] = []
        for path, more, sent in (
            (f"/up/{CANARY}/v1/chat/completions{query}", (), CANARY.encode()),
            (f"/up/broken{query}", (), CANARY.encode()),
            (f"/other/{CANARY}{query}", (), b""),
            (f"/up/{query}", (f"Bad\0: {CANARY}",), b""),
            (f"/up/{query}", (f"X: {CANARY}\0{CANARY}",), b""),
            (f"/up/{CANARY} {CANARY}", (), b""),
            (f"/up/{query}", ("Transfer-Encoding: chunked",), f"z{CANARY}\r\n".encode()),
            (f"/up/{query}", ("Transfer-Encoding: chunked",), chunk(CANARY.encode() * 90)),
        ):
            answers.append(await exchange(tap.port, request(path, *secret, *known, *more, body=sent)))
        assert CANARY.encode() in up.calls[0].head  # it did pass
        assert b"acme" not in b"".join(call.head for call in up.calls)
    entries: Any = await redis.xrange(f"{prefix}:deltas")
    fields = {name: value for _, entry in entries for name, value in entry.items()}
    assert (fields[b"tenant"], fields[b"safety_identifier"], fields[b"reference"]) == (
        b"acme",
        b"user-7",
        b"ticket",
    )
    assert "No." in repr(entries)
    assert {frame.kind for frame in queued} == {1, 2, 3}
    output = capfd.readouterr()
    everything: list[Any] = [
        entries,
        queued,
        output,
        answers,
        vars(tap.counts),
        pipe.dropped_bytes,
        publisher.counters,
    ]
    assert CANARY not in repr(everything)


async def test_a_client_that_leaves_cancels_its_copy() -> None:
    """End the copy at once, as cancelled, and not as abandoned minutes later."""
    recorder = CountingRecorder()

    async def answer(call: Call) -> None:
        await call.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunk(b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'),
        )
        await call.closed()

    async with upstream(answer) as up, copying(recorder) as pipe, forwarding(up.url, pipe=pipe) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(request())
        await reader.readuntil(b"Hi")
        writer.close()
        await wait_until(lambda: recorder.streams and recorder.only.ended, message="the copy has ended")
    assert recorder.only.events[-1]["type"] == "response.cancelled"


async def test_compressed_answers_are_copied() -> None:
    """Copy an answer in Brotli, which clients in browsers, Node and Go ask for, and pass it on as it came."""
    body = b'data: {"id":"c","choices":[{"index":0,"delta":{"refusal":"No"}}]}\n\n' * 20
    packed: bytes = brotli.compress(body)
    recorder = CountingRecorder()

    async def answer(call: Call) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: br\r\n"
        await call.send(head + b"Content-Length: %d\r\n\r\n" % len(packed), packed[:20], packed[20:])

    async with upstream(answer) as up, copying(recorder) as pipe, forwarding(up.url, pipe=pipe) as tap:
        assert (await exchange(tap.port, request())).body == packed
    assert "".join(event.get("delta", "") for event in recorder.only.events) == "No" * 20


async def test_only_what_can_be_read_is_copied() -> None:
    """Leave out answers that are no stream, and those in an encoding that the translator does not know."""
    recorder = CountingRecorder()

    async def answer(call: Call) -> None:
        kind = b"text/html" if b"/html" in call.head else b"text/event-stream"
        await call.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: "
            + kind
            + b"\r\nContent-Encoding: compress\r\nContent-Length: 2\r\n\r\nhi"
        )

    async with upstream(answer) as up, copying(recorder) as pipe, forwarding(up.url, pipe=pipe) as tap:
        for path in ("/up/html", "/up/v1/models", "/up/v1/responses"):
            assert (await exchange(tap.port, request(path))).body == b"hi"
    assert recorder.streams == []
    assert tap.counts.not_copied == {"no_stream": 2, "content_encoding": 1}


async def test_a_copy_without_an_end_is_interrupted() -> None:
    """End a copy that is open when the forwarder goes, so that its response does not stay open."""
    recorder = CountingRecorder()
    async with copying(recorder) as pipe:
        body = pipe.begin({"translation": {"dialect": "openai.chat", "response_id": "r"}, "context": {}})
        body.piece(b'data: {"id":"c","choices":[{"index":0,"delta":{"refusal":"No"}}]}\n\n')
    assert recorder.only.ended == 1
    assert recorder.types[-1] == "response.failed"


async def test_a_cluster_that_is_away_costs_only_the_copy() -> None:
    """Count the failed attempts to reach a cluster, and drop its events at the end."""
    publisher = publisher_of(
        {
            "redis_url": "redis://127.0.0.1:1",
            "redis_mode": "cluster",
            "prefix": "away",
            "partitions": 1,
            "budget": 64 * 1024,
            "max_event_bytes": 1024,
        }
    )
    async with copying(publisher, publish_seconds=0.1) as pipe:
        body = pipe.begin({"translation": {"dialect": "openai.chat", "response_id": "r"}, "context": {}})
        body.piece(b'data: {"id":"c","choices":[{"index":0,"delta":{"refusal":"No"}}]}\n\n')
        await wait_until(lambda: publisher.counters.failures, message="the cluster was tried")
    books = publisher.counters
    assert (books.published, books.waiting) == (0, 0)
    assert books.seen == books.merged + sum(books.dropped.values()) > 0


async def test_the_provider_of_the_table_is_in_the_context() -> None:
    """Name the provider that the file of upstreams gives, in place of that of the dialect."""
    recorder = CountingRecorder()

    async def answer(call: Call) -> None:
        await call.stream([b'data: {"id":"c","choices":[{"index":0,"delta":{"refusal":"No"}}]}\n\n'])

    async with upstream(answer) as up, copying(recorder) as pipe:
        tables = {"up": Upstream(url=up.url, provider="acme-ai")}
        async with forwarding(tables=tables, pipe=pipe) as tap:
            await exchange(tap.port, request())
    assert recorder.only.context["provider"] == "acme-ai"
