"""HTTP servers that record the requests they receive, and answer as a test specifies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

OVER = web.RequestKey("over", asyncio.Event)
"""Set at the end of the test, so that hanging requests end."""
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Received:
    """A recorded request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the parsed JSON body."""
        return json.loads(self.body)


@dataclass(slots=True)
class Receiver:
    """A running server."""

    url: str
    behaviours: list[Behaviour]
    """Behaviours for successive requests; the last one stays in use."""
    received: list[Received] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self) -> int:
        """Return its port."""
        return int(self.url.rpartition(":")[2])

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record the request, and answer it."""
        body = await request.read()
        self.received.append(Received(request.method, request.path_qs, dict(request.headers), body))
        behave = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        request[OVER] = self.over
        return await behave(request)


@asynccontextmanager
async def receiving(*behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run a server on a free port of 127.0.0.1. By default it answers 200 with the body `ok`."""
    receiver = Receiver("", list(behaviours) or [status(200, "ok")])
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        receiver.over.set()
        await runner.cleanup()


def status(code: int, text: str = "", **headers: str) -> Behaviour:
    """Return a behaviour with this status; a keyword such as `Retry_After` is the header `Retry-After`."""

    async def behave(_request: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, text=text, headers=named)

    return behave


async def hang(request: web.Request) -> web.Response:
    """Wait until the test ends."""
    await request[OVER].wait()
    return web.Response()


def late(may_answer: asyncio.Event) -> Behaviour:
    """Return a behaviour that answers 200 when the event is set."""

    async def behave(_request: web.Request) -> web.Response:
        await may_answer.wait()
        return web.Response(text="ok")

    return behave


def raw(answer: bytes) -> Behaviour:
    """Return a behaviour that writes these bytes, valid HTTP or not, and closes the connection."""

    async def behave(request: web.Request) -> web.Response:
        assert request.transport
        request.transport.write(answer)
        request.transport.close()
        return web.Response()

    return behave


def endless(code: int) -> Behaviour:
    """Return a behaviour with a response body that never ends."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=code)
        await response.prepare(request)
        try:
            while not request[OVER].is_set():
                await response.write(b"x" * 65536)
        except ConnectionError:
            pass
        return response

    return behave


def dripping(code: int) -> Behaviour:
    """Return a behaviour that sends one byte of the body, and hangs until the test ends."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=code)
        await response.prepare(request)
        await response.write(b"x")
        await request[OVER].wait()
        return response

    return behave


async def echo(request: web.Request) -> web.Response:
    """Refuse with status 400, and repeat path and body of the request."""
    return web.Response(status=400, text=f"{request.path_qs} {(await request.read()).decode()}")
