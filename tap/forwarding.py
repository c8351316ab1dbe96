"""Pass requests on to upstreams, and answers back, without reading their bodies.

1. A piece of an answer goes to the client as it comes. Only then is it handed to the copy.
2. Back-pressure is kept: a client that reads slowly slows its upstream, and nothing is held for it but the
   buffers of two sockets.
3. When the client leaves, its handler is cancelled, and the connection to the upstream closes.
4. If an answer breaks off, it breaks off for the client too: the last chunk is never written.
5. Scheme, host and port come from the file of upstreams alone. Redirects are passed on and not followed, and
   the environment's proxies are not used.
6. Nothing of a request is logged, not even its path. A log line has the name of the upstream and the class of
   the error.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web
from aiohttp.http import HttpVersion10
from yarl import URL

from deltaloom.dialects import dialect_of_path
from deltaloom.dialects.content_encoding import is_readable
from deltaloom.teeing.endpoints import translation_of
from service import logs
from tap.heads import (
    body_is_announced,
    has_known_framing,
    is_text,
    passed_to_client,
    passed_to_upstream,
)
from tap.refusals import RefusalError
from tap.request_bodies import pieces_of
from tap.upstream_connections import UpstreamConnections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from deltaloom.dialects import EndReason
    from tap.copy_pipe import CopiedBody, CopyPipe
    from tap.heads import ContextHeaders
    from tap.tap_counts import TapCounts
    from tap.tap_settings import TapSettings
    from tap.upstreams import NamedUpstream, Upstreams

_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp adds to a request without them."""
_ADDED: Final = ("Content-Type", "Date", "Server")
"""Headers that aiohttp adds to an answer without them."""

_TUNNELS: Final = frozenset({"tcp", "websocket"})
"""Protocols after an upgrade to which aiohttp reads no more requests. Others are ignored (RFC 9110, 7.8)."""

_FIRST_FINAL_STATUS: Final = 200


class PassedAnswer(web.StreamResponse):
    """An answer with the upstream's headers only."""

    async def _prepare_headers(self) -> None:
        added = [name for name in _ADDED if name not in self.headers]
        await super()._prepare_headers()
        for name in added:
            self.headers.popall(name, None)


class Exchange:
    """A request under way.

    Args:
        request: the request.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.target: NamedUpstream | None = None
        self.outcome = ""
        """End of the request, for the counts; empty while it is under way."""
        self.answer: PassedAnswer | None = None
        self.copied: CopiedBody | None = None
        self.refusal: RefusalError | None = None
        """Reason why the body of the request was not read to its end."""
        self.sent = 0
        """Bytes of the answer's body so far."""
        self.sent_before = -1
        """Bytes of the answer's body at the last look for stalled clients."""

    def is_stalled(self) -> bool:
        """Return True if the client has read nothing since the last call, although something waits for it."""
        transport = self.request.transport
        is_same, self.sent_before = self.sent == self.sent_before, self.sent
        return is_same and transport is not None and transport.get_write_buffer_size() > 0


class Forwarder:
    """Passes requests on.

    Args:
        upstreams: where requests may go.
        settings: limits, and the headers with the context.
        counts: counts what passes.
        pipe: takes the copies; None to copy nothing.
    """

    def __init__(
        self, upstreams: Upstreams, settings: TapSettings, counts: TapCounts, pipe: CopyPipe | None
    ) -> None:
        self.upstreams = upstreams
        self._headers: ContextHeaders = settings.context_headers
        self._client_timeout = settings.tap_client_timeout
        self._body_timeout = settings.tap_body_timeout
        self._max_body = settings.tap_max_body_bytes
        self._max_header = settings.tap_max_header_bytes
        self._counts = counts
        self._pipe = pipe
        self._session: aiohttp.ClientSession | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.exchanges: set[Exchange] = set()
        """Requests under way."""

    def stopping(self) -> None:
        """Note that the tap stops: a handler that is cancelled from now on has the outcome `stopped`."""
        self._is_stopping = True

    async def start(self) -> None:
        """Open the pool of connections, and begin to watch for stalled clients."""
        self._session = aiohttp.ClientSession(
            connector=UpstreamConnections(),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            max_line_size=self._max_header,
            max_field_size=self._max_header,
            trust_env=False,
        )
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Close all connections to upstreams."""
        if self._watching is not None:
            self._watching.cancel()
        if self._session is not None:
            await self._session.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request.

        Raises:
            ConnectionError: the answer broke off after its beginning was sent.
        """
        exchange = Exchange(request)
        self.exchanges.add(exchange)
        reason: EndReason = "interrupted"
        try:
            answer = await self._forward(exchange)
        except RefusalError as refusal:
            exchange.outcome = refusal.reason
            answer = refusal.answer()
        except asyncio.CancelledError:
            exchange.outcome = exchange.outcome or ("stopped" if self._is_stopping else "client_left")
            raise
        except ConnectionError:
            exchange.outcome = exchange.outcome or "broken_off"
            raise
        else:
            exchange.outcome, reason = "passed", "complete"
        finally:
            self.exchanges.discard(exchange)
            name = "" if exchange.target is None else exchange.target.name
            self._counts.requests[name, exchange.outcome or "failed"] += 1
            if exchange.copied is not None:
                exchange.copied.end("cancelled" if exchange.outcome.startswith("client_") else reason)
        return answer

    async def _forward(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        target, url = self._target_of(request)
        exchange.target = target
        self._check(request)
        assert self._session is not None, "started"  # noqa: S101 - documents an invariant
        upstream = target.upstream
        try:
            async with self._session.request(
                request.method,
                URL(url, encoded=True),
                headers=passed_to_upstream(request.raw_headers, self._headers),
                data=self._body(exchange) if body_is_announced(request.headers) else None,
                allow_redirects=False,
                ssl=target.tls,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=upstream.connect_timeout, sock_read=upstream.idle_timeout
                ),
            ) as received:
                return await self._pass_back(exchange, received)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if exchange.refusal is not None and exchange.answer is None:
                raise exchange.refusal from None
            raise self._failure(exchange, error) from None

    def _target_of(self, request: web.BaseRequest) -> tuple[NamedUpstream, str]:
        """Return the upstream of a request and the URL there.

        Raises:
            RefusalError: there is none.
        """
        raw = request.raw_path
        found = self.upstreams.find(request.headers.get("Host", ""), raw)
        if found is None:
            known = ", ".join(f"/{name}/" for name in self.upstreams.targets)
            raise RefusalError(404, "unknown_upstream", f"no upstream has this path; use {known}")
        target, rest = found
        url = target.url_of(rest)
        if url is None or "#" in raw or not is_text([raw]):
            raise RefusalError(
                400, "bad_target", "the path has dot segments, a fragment or bytes that are not UTF-8"
            )
        return target, url

    def _check(self, request: web.BaseRequest) -> None:
        """Check that a request can be passed on.

        Raises:
            RefusalError: it cannot.
        """
        headers = request.headers
        if request.version < HttpVersion10:
            raise RefusalError(505, "http_version", "only HTTP/1.1 and HTTP/1.0 are known")
        if not has_known_framing(headers):
            raise RefusalError(501, "transfer_coding", "only chunked is known as a transfer coding")
        if request.method == "CONNECT" or headers.get("Upgrade", "").lower() in _TUNNELS:
            raise RefusalError(501, "upgrade", "only HTTP requests are passed on, no tunnels or WebSockets")
        if not is_text(headers.values()):
            raise RefusalError(400, "bad_header", "a header has bytes that are not UTF-8")
        length = headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) > self._max_body:
            raise RefusalError(413, "body_too_large", f"the body has more than {self._max_body} bytes")

    async def _body(self, exchange: Exchange) -> AsyncIterator[bytes]:
        """Yield the body of a request as it comes.

        Raises:
            RefusalError: the client is too slow, or the body is too large or malformed.
        """
        try:
            async for data in pieces_of(
                exchange.request, self._max_body, self._client_timeout, self._body_timeout
            ):
                self._counts.from_clients += len(data)
                yield data
        except RefusalError as refusal:
            exchange.refusal = refusal
            raise

    async def _pass_back(self, exchange: Exchange, received: aiohttp.ClientResponse) -> web.StreamResponse:
        if (
            received.status < _FIRST_FINAL_STATUS
            or not has_known_framing(received.headers)
            or not is_text([received.reason or "", *received.headers.values()])
        ):
            raise RefusalError(502, "bad_answer", "the upstream's head cannot be passed on")
        answer = PassedAnswer(
            status=received.status,
            reason=received.reason or "",
            headers=passed_to_client(received.raw_headers),
        )
        exchange.answer = answer
        with _client_may_leave(exchange):
            await answer.prepare(exchange.request)
        copied = exchange.copied = self._copy_of(exchange, received)
        counts, read, write = self._counts, received.content.readany, answer.write
        with _broken_with_connection(received):
            while data := await read():
                size = len(data)
                counts.from_upstreams += size
                try:
                    await write(data)
                except BaseException as error:
                    counts.undelivered += size
                    if isinstance(error, ConnectionError):
                        exchange.outcome = "client_left"
                    raise
                counts.to_clients += size
                exchange.sent += size
                if copied is not None:
                    counts.copied += size
                    copied.piece(data)
        with _client_may_leave(exchange):
            await answer.write_eof()
        return answer

    def _copy_of(self, exchange: Exchange, received: aiohttp.ClientResponse) -> CopiedBody | None:
        """Begin the copy of an answer; return None if its dialect or its encoding is unknown."""
        if self._pipe is None:
            return None
        headers = received.headers
        encoding = headers.get("Content-Encoding", "").strip().lower()
        found = translation_of(
            received.method, received.url.raw_path, received.status, headers.get("Content-Type", ""), encoding
        )
        if found is None:
            self._counts.not_copied["no_stream"] += 1
            return None
        if not is_readable(encoding):
            self._counts.not_copied["content_encoding"] += 1
            return None
        context = self._headers.context_of(exchange.request.headers)
        if exchange.target is not None and exchange.target.upstream.provider:
            context["provider"] = exchange.target.upstream.provider
        return self._pipe.begin(
            {"translation": _without_path(found) | {"response_id": new_id()}, "context": context}
        )

    def _failure(self, exchange: Exchange, error: Exception) -> Exception:
        """Return the error for an upstream that failed, or a client that left."""
        if exchange.outcome == "client_left":
            return ConnectionResetError("the client has left")
        is_late = isinstance(error, TimeoutError)
        name = "" if exchange.target is None else exchange.target.name
        logs.logger().warning("upstream failed", upstream=name, error=type(error).__name__)
        if exchange.answer is not None:
            return ConnectionResetError("the upstream broke off")
        if is_late:
            return RefusalError(504, "upstream_timeout", f"upstream {name} did not answer in time")
        return RefusalError(
            502, "upstream_failed", f"upstream {name} cannot be reached, or its answer is not HTTP"
        )

    async def _watch(self) -> None:
        """Close connections of clients that read nothing for too long."""
        while True:
            await asyncio.sleep(self._client_timeout)
            for exchange in [each for each in self.exchanges if each.is_stalled()]:
                exchange.outcome = "client_stalled"
                if exchange.request.transport is not None:
                    exchange.request.transport.abort()


@contextmanager
def _client_may_leave(exchange: Exchange) -> Iterator[None]:
    """Note that the client has left if something cannot be written to it."""
    try:
        yield
    except ConnectionError:
        exchange.outcome = exchange.outcome or "client_left"
        raise


@contextmanager
def _broken_with_connection(received: aiohttp.ClientResponse) -> Iterator[None]:
    """Tell the reader of a body when its connection ends.

    After a malformed chunk, aiohttp (3.14) closes the connection and leaves the reader waiting for ever.
    """
    connection, content = received.connection, received.content
    closed = None if connection is None or connection.protocol is None else connection.protocol.closed
    if closed is None:
        yield
        return

    def fail(_: object) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection has ended"))

    closed.add_done_callback(fail)
    try:
        yield
    finally:
        closed.remove_done_callback(fail)  # the connection may serve many more requests


def new_id() -> str:
    """Return the id of a new response."""
    return f"resp_{uuid.uuid4().hex}"


def _without_path(translation: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the translator with only the part of the path that shows the dialect."""
    dialect = dialect_of_path(translation.get("path", ""))
    return translation | ({"path": dialect.path_parts[0]} if dialect else {})
