"""An HTTP server that limits connections, the size of heads, and the time in which a head has to come.

It logs nothing: aiohttp's own lines about a bad request quote it.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from service import logs
from tap.refusals import RefusalError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from tap.tap_counts import TapCounts
    from tap.tap_settings import TapSettings

_SILENT: Final = logging.getLogger("deltaloom.unheard")
_SILENT.disabled = True

_LINGER_SECONDS: Final = 1.0
"""Seconds for which the rest of a refused body is read, so that its sender sees the answer."""


class CheckedConnection(RequestHandler):
    """A connection that answers and counts malformed requests, and quotes nothing of them.

    If the framing of a body breaks, its reader gets an error. aiohttp (3.14) alone would append an answer to
    the queue of requests and let the reader wait for ever.

    Args:
        server: the server.
        counts: counts the malformed requests.
        **options: those of aiohttp.
    """

    __slots__ = ("_counts",)

    def __init__(self, server: LimitedServer, counts: TapCounts, **options: Any) -> None:
        super().__init__(server, **options)
        self._counts = counts

    def data_received(self, data: bytes) -> None:
        """Parse bytes; after a fault, the body that was being read ends with `RequestPayloadError`."""
        super().data_received(data)
        if not self._messages or isinstance(self._messages[-1][0], RawRequestMessage):
            return
        if len(self._messages) > 1:
            broken = self._messages[-2][1]
        elif self._current_request is not None:
            broken = self._current_request.content
        else:
            return
        if not broken.is_eof() and broken.exception() is None:
            broken.set_exception(web.RequestPayloadError("the framing is broken"))
            broken.feed_eof()  # nothing more is waited for

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
            self._counts.requests["", "malformed"] += 1
            name = type(exc).__name__
            return RefusalError(status, "malformed", f"the request is no HTTP/1.1 ({name})").answer()
        logs.logger().error("request failed", error=type(exc).__name__, place=_place_of(exc))
        return RefusalError(status, "internal_error", "the request cannot be passed on").answer()


def _place_of(error: BaseException | None) -> str:
    """Return the file and the line that raised an error; an empty string if they are not known."""
    frames = traceback.extract_tb(None if error is None else error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


class LimitedServer(web.Server):
    """A server whose handlers are cancelled when their client leaves.

    Args:
        handler: answers a request.
        settings: the limits.
        counts: counts the refused connections.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        settings: TapSettings,
        counts: TapCounts,
    ) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            access_log=None,
            logger=_SILENT,
            auto_decompress=False,  # a body passes as it came
            max_line_size=settings.tap_max_header_bytes,
            max_field_size=settings.tap_max_header_bytes,
            keepalive_timeout=settings.tap_client_timeout,
            lingering_time=_LINGER_SECONDS,
        )
        self._counts = counts
        self._max_connections = settings.tap_max_connections
        self.handshakes: set[RequestHandler] = set()
        """Protocols of accepted connections whose handshake is under way."""

    def has_room(self) -> bool:
        """Return True if one more connection is allowed; count a refused one."""
        if len(self._connections) + len(self.handshakes) < self._max_connections:
            return True
        self._counts.connections_refused += 1
        return False

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return CheckedConnection(self, self._counts, loop=self._loop, **self._kwargs)

    def abort(self) -> None:
        """Close all connections at once; their handlers are cancelled."""
        for transport in list(self._connections.values()):
            transport.abort()

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Register a connection; close it at once if there are too many.

        After a handshake, it already has its place.
        """
        has_place = handler in self.handshakes
        self.handshakes.discard(handler)
        is_refused = not has_place and not self.has_room()
        super().connection_made(handler, transport)
        if is_refused:
            transport.abort()
