"""Compare what curl gets through a tap over TLS with what it gets from the upstream."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from tests import certificates
from tests.tap.running import forwarding
from tests.tap.test_faults import PIECES
from tests.tap.wire import Call, upstream
from tests.tiers import need

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.prove

CALLS = {
    "a stream": ("-d", '{"stream": true}'),
    "a large upload": ("-d", "x" * 100_000),
    "an upload without a length": ("-H", "Transfer-Encoding: chunked", "-d", "x" * 5_000),
    "no body": (),
    "an error": ("-d", "fail"),
}


async def answer(call: Call) -> None:
    """Answer with an error, or a stream that ends with the size of the request's body."""
    if call.body == b"fail":
        await call.send(b"HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno")
        return
    await call.stream([*PIECES, b": %d\n\n" % len(call.body)])


async def curl(*arguments: str) -> bytes:
    """Return what curl prints: the body and the status, with the retry-after header."""
    program = need("curl", what="curl", package="curl")
    command = (
        program,
        "-sS",
        "-N",
        "-w",
        "|%{http_code}|%header{retry-after}",
        "--max-time",
        "30",
        *arguments,
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def test_curl_gets_the_same_through_a_tap(tmp_path: Path) -> None:
    """Get the same bytes, status and headers of streams, uploads and errors."""
    made = certificates.make(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made.certificate, made.key)
    async with upstream(answer) as up, forwarding(up.url, tls=tls) as tap:
        for name, arguments in CALLS.items():
            path = "/v1/chat/completions"
            direct = await curl(*arguments, f"{up.url}{path}")
            trusting = ("--cacert", str(made.certificate))
            tapped = await curl(*trusting, *arguments, f"https://127.0.0.1:{tap.port}/up{path}")
            assert tapped == direct, name
            assert direct.endswith(b"|429|7" if name == "an error" else b"|200|"), name
