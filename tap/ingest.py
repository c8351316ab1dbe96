"""Take copies of raw streams from programs in any language: `POST /ingest/{dialect}`.

The body is what the provider sent, piece by piece as it came, with its `Content-Type` and `Content-Encoding`.
The headers that the settings name give its context. The answer comes when the body has ended.
"""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING, Final

from aiohttp import web

from deltaloom.dialects import dialect_named
from tap.forwarding import new_id
from tap.refusals import RefusalError
from tap.request_bodies import pieces_of

if TYPE_CHECKING:
    from deltaloom.dialects import EndReason
    from tap.copy_pipe import CopiedBody, CopyPipe
    from tap.tap_counts import TapCounts
    from tap.tap_settings import TapSettings

_PREFIX: Final = "/ingest/"


class Ingest:
    """Takes streams.

    Args:
        settings: limits, and the headers with the context.
        counts: counts the bytes.
        pipe: takes the copies.
        token: token that a request must have; None for none.
    """

    def __init__(self, settings: TapSettings, counts: TapCounts, pipe: CopyPipe, token: bytes | None) -> None:
        self._headers = settings.context_headers
        self._timeout = settings.tap_client_timeout
        self._max_body = settings.tap_max_body_bytes
        self._counts = counts
        self._pipe = pipe
        self._token = token

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        try:
            dialect = self._dialect_of(request)
        except RefusalError as refusal:
            return refusal.answer()
        response_id = new_id()
        headers = request.headers
        copied = self._pipe.begin(
            {
                "translation": {
                    "dialect": dialect,
                    "content_type": headers.get("Content-Type", "")[:200],
                    "content_encoding": headers.get("Content-Encoding", "")[:200],
                    "response_id": response_id,
                },
                "context": self._headers.context_of(headers),
            }
        )
        end: EndReason = "interrupted"
        try:
            size = await self._take(request, copied)
            end = "complete"
        except RefusalError as refusal:
            return refusal.answer()
        finally:
            copied.end(end)
        body = {"response_id": response_id, "bytes": size, "copied": not copied.is_lost}
        return web.Response(body=json.dumps(body).encode(), content_type="application/json")

    def _dialect_of(self, request: web.BaseRequest) -> str:
        """Return the dialect that the path names.

        Raises:
            RefusalError: the request may not publish, or names no dialect.
        """
        headers = request.headers
        if self._token is not None:
            scheme, _, given = headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                given.strip().encode(errors="replace"), self._token
            ):
                raise RefusalError(401, "unauthorized", "send the token as Authorization: Bearer")
        elif "Origin" in headers:  # a page in a browser on this machine could post here
            raise RefusalError(403, "browser", "pages in browsers may not publish without a token")
        if request.method != "POST" or not request.path.startswith(_PREFIX):
            raise RefusalError(404, "unknown_path", "only POST /ingest/{dialect} is known")
        try:
            return dialect_named(request.path.removeprefix(_PREFIX)).name
        except ValueError as error:
            raise RefusalError(404, "unknown_dialect", str(error)) from None

    async def _take(self, request: web.BaseRequest, copied: CopiedBody) -> int:
        """Copy the body as it comes, and return its size in bytes.

        Raises:
            RefusalError: the client is too slow, or the body is too large or malformed.
        """
        size = 0
        async for data in pieces_of(request, self._max_body, self._timeout):
            size += len(data)
            self._counts.ingested += len(data)
            copied.piece(data)
        return size
