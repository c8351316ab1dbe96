"""`POST /ingest/{dialect}`: copies of streams from programs in any language."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from pydantic import ValidationError

from tap.ingest import Ingest
from tap.limited_server import LimitedServer
from tap.tap_counts import TapCounts
from tests.tap.running import copying, settings_of
from tests.tap.test_copying import CountingRecorder
from tests.tap.wire import chunk, exchange, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STREAM = b"""data: {"id":"c","choices":[{"index":0,"delta":{"refusal":"No."},"finish_reason":"stop"}]}

data: [DONE]

"""


@asynccontextmanager
async def ingesting(
    recorder: CountingRecorder, token: bytes | None = None, timeout: float = 0.3
) -> AsyncIterator[int]:
    """Run an ingest, and yield its port."""
    settings, counts = settings_of(tap_max_body_bytes=1024, tap_client_timeout=timeout), TapCounts()
    async with copying(recorder) as pipe:
        handler = Ingest(settings, counts, pipe, token).handle
        runner = web.ServerRunner(LimitedServer(handler, settings, counts), handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


async def test_a_stream_is_published_with_its_context() -> None:
    """Take a chunked stream, and answer with the response's id."""
    recorder = CountingRecorder()
    async with ingesting(recorder) as port:
        parts = b"".join(chunk(STREAM[at : at + 10]) for at in range(0, len(STREAM), 10)) + b"0\r\n\r\n"
        headers = (
            "Transfer-Encoding: chunked",
            "X-Deltaloom-Tenant: acme",
            "Content-Type: text/event-stream",
        )
        answer = await exchange(port, request("/ingest/openai.chat", *headers, body=parts))
    got = json.loads(answer.body)
    assert got == {"response_id": recorder.only.response_id, "bytes": len(STREAM), "copied": True}
    assert recorder.only.context["tenant"] == "acme"
    assert "response.refusal.delta" in recorder.types
    assert recorder.only.ended == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/ingest/nonsense", body=STREAM), 404),
        (request("/other", body=STREAM), 404),
        (request("/ingest/openai.chat", method="GET", body=b""), 404),
        (request("/ingest/openai.chat", "Origin: http://evil.test", body=STREAM), 403),
        (request("/ingest/openai.chat", body=b"x" * 1025), 413),
        (request("/ingest/openai.chat", "Transfer-Encoding: chunked", body=b"zz\r\n"), 400),
        (b"POST /ingest/openai.chat HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nx", 408),
    ],
)
async def test_what_the_ingest_refuses(data: bytes, status: int) -> None:
    """Refuse pages of browsers, unknown dialects, and bodies that are too large or too slow."""
    async with ingesting(CountingRecorder()) as port:
        assert (await exchange(port, data)).status == status


async def test_a_token_is_required_if_there_is_one() -> None:
    """Publish nothing without the token."""
    recorder = CountingRecorder()
    async with ingesting(recorder, b"secret") as port:
        for header in (
            "X: 1",
            "Authorization: Bearer wrong",
            "Authorization: secret",
            "Authorization: Bearer é",
        ):
            assert (await exchange(port, request("/ingest/openai.chat", header, body=STREAM))).status == 401
        assert recorder.streams == []
        good = request("/ingest/openai.chat", "Authorization: bearer secret", body=STREAM)
        assert (await exchange(port, good)).status == 200
    assert recorder.only.ended == 1


@pytest.mark.parametrize(("rest", "status"), [(chunk(STREAM) + b"0\r\n\r\n", 200), (b"zz\r\n", 400)])
async def test_a_body_is_asked_for(rest: bytes, status: int) -> None:
    """Ask for a body that is announced; do not take one whose framing breaks after it was asked for."""
    recorder = CountingRecorder()
    async with ingesting(recorder, timeout=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            headers = ("Transfer-Encoding: chunked", "Expect: 100-continue")
            writer.write(request("/ingest/openai.chat", *headers, body=b""))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(rest)
            assert int((await reader.readline()).split()[1]) == status
        finally:
            writer.close()
    assert [stream.ended for stream in recorder.streams] == ([1] if status == 200 else [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"tap_tenant_header": "x tenant"}, "the name of a header, of letters, digits and -"),
        ({"tap_tls_certificate": "certificate.pem"}, "set both, or neither"),
        ({"tap_tls_key": "key.pem"}, "set both, or neither"),
        ({"tap_tenant_header": "X-Who", "tap_reference_header": "x-who"}, "name a different header"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, str], expected: str) -> None:
    """Refuse half a certificate, odd names of headers, and one header for two fields."""
    with pytest.raises(ValidationError, match=expected):
        settings_of(**given)


def test_another_machine_needs_a_token() -> None:
    """Refuse settings that let anybody publish; a port alone means an address of this machine."""
    assert settings_of(tap_ingest="8788").tap_ingest == "127.0.0.1:8788"
    assert settings_of(tap_ingest="[::1]:8788").tap_ingest == "[::1]:8788"
    with pytest.raises(ValidationError, match="without DELTALOOM_TAP_INGEST_TOKEN_FILE"):
        settings_of(tap_ingest="0.0.0.0:8788")
    assert settings_of(tap_ingest="0.0.0.0:8788", tap_ingest_token_file=Path("token")).tap_ingest
