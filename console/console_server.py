"""An HTTP server whose every answer has the console's headers, also that to a malformed request."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from console.json_bodies import json_bytes
from console.page_files import HEADERS
from service import logs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

_UNHEARD: Final = logging.getLogger("deltaloom.unheard")
_UNHEARD.disabled = True  # aiohttp's own lines quote requests

MAX_LINE: Final = 16 * 1024
"""Maximum bytes of a request's first line, and of each header."""
_IDLE_SECONDS: Final = 30.0
"""Seconds for which a connection without a request stays open."""


def json_answer(value: Any, status: int = HTTPStatus.OK) -> web.Response:
    """Return an answer with JSON, which no cache may store."""
    return web.Response(
        body=json_bytes(value),
        status=status,
        headers={"Content-Type": "application/json", "Cache-Control": "no-store"},
    )


def with_headers(answer: web.StreamResponse) -> web.StreamResponse:
    """Add the headers that every answer has."""
    answer.headers.update(HEADERS)
    answer.headers["Server"] = "deltaloom"
    return answer


class ConsoleConnection(RequestHandler):
    """A connection whose malformed requests are answered, and never quoted."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - quotes the request
    ) -> web.StreamResponse:
        """Return the answer to a malformed request, or for a handler that failed.

        Raises:
            ConnectionError: the answer has begun already, so that it can only break off.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        if isinstance(exc, HttpProcessingError):
            sentence = "the request is no HTTP/1.1 that the console reads"
        else:
            logs.logger().error("console request failed", error=type(exc).__name__)
            status, sentence = HTTPStatus.INTERNAL_SERVER_ERROR, "the console failed: see its log"
        answer = with_headers(json_answer({"error": sentence}, status))
        answer.force_close()
        return answer


class ConsoleServer(web.Server):
    """A server that limits connections, and whose handlers are cancelled when their client leaves.

    Args:
        handler: answers a request.
        most: maximum connections; further ones are closed at once.
    """

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], most: int
    ) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            access_log=None,
            logger=_UNHEARD,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=1.0,
        )
        self._most = most

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return ConsoleConnection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Register a connection; close it at once if there are too many."""
        super().connection_made(handler, transport)
        if len(self._connections) > self._most:
            transport.abort()
