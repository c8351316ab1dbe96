"""Serve routes over HTTP, in the event loop of the program.

It is made for probes and scrapers, not for traffic: a connection serves one request, and has a few seconds
for it; connections, requests and headers are limited, and a request has no body. Import this module only if
the operator wants HTTP, since aiohttp takes start time and memory.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from service import logs
from service.observability.routes import Answer, HttpRequest, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aiohttp.web_protocol import RequestHandler

    from service.observability.routes import Route

MAX_CONNECTIONS: Final = 64
"""Maximum connections at a time; further ones are closed at once."""
CONNECTION_SECONDS: Final = 10.0
"""Maximum seconds of a connection, with its request and its answer."""
MAX_LINE_BYTES: Final = 2048
"""Maximum bytes of the request line, and of a header."""
MAX_HEADERS: Final = 64
"""Maximum headers of a request."""
_ALLOWED: Final = ("GET", "HEAD")
_STOPS_WITHIN: Final = 1.0
"""Maximum seconds for which the answers under way are waited for at the end."""
_SAFE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class HttpServer:
    """An HTTP server.

    Args:
        routes: the routes by path, such as `/livez`; they may be added and removed while it serves.
        within: maximum seconds of a route; after that the answer is 503.
    """

    def __init__(self, routes: Mapping[str, Route], within: float = CONNECTION_SECONDS / 2) -> None:
        self._routes = routes
        self._within = within
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Start serving at an address; return the port, which the system chooses if it is 0.

        Raises:
            OSError: the address cannot be used.
        """
        runner = await self._running()
        await web.TCPSite(runner, host, port).start()
        bound: int = runner.addresses[0][1]
        return bound

    async def start_at(self, socket: Path) -> None:
        """Start serving at a Unix socket.

        Raises:
            OSError: the socket cannot be created.
        """
        await web.UnixSite(await self._running(), str(socket)).start()

    async def stop(self) -> None:
        """Stop serving; answers under way have a second."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _running(self) -> web.ServerRunner:
        server = _LimitedServer(
            self._serve,
            access_log=None,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            lingering_time=0,
        )
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=_STOPS_WITHIN)
        await self._runner.setup()
        return self._runner

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = await self._answer(request)
        response = web.Response(body=answer.body, status=answer.status, headers=dict(answer.headers) | _SAFE)
        response.headers["Content-Type"] = answer.content_type
        response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> Answer:
        route = self._routes.get(request.path)
        if route is None:
            return text("not found", HTTPStatus.NOT_FOUND)
        if request.method not in _ALLOWED:
            allow = (("Allow", ", ".join(_ALLOWED)),)
            return Answer(b"only GET and HEAD\n", HTTPStatus.METHOD_NOT_ALLOWED, headers=allow)
        try:
            async with asyncio.timeout(self._within):
                return await route(HttpRequest(request.path, request.headers))
        except TimeoutError:
            return text("no answer in time", HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception:  # noqa: BLE001 - the answer must not name it, since anybody may ask
            logs.logger().exception("http request failed", path=request.path)
            return text("failed, see the log", HTTPStatus.INTERNAL_SERVER_ERROR)


class _LimitedServer(web.Server):
    """A server that limits the connections, and the time of each."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._ends: dict[RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Register a connection; close it at once if there are too many, else in time."""
        super().connection_made(handler, transport)
        if len(self._ends) >= MAX_CONNECTIONS:
            transport.abort()
            return
        self._ends[handler] = asyncio.get_running_loop().call_later(CONNECTION_SECONDS, transport.abort)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Unregister a connection."""
        super().connection_lost(handler, exc)
        if handler in self._ends:
            self._ends.pop(handler).cancel()
