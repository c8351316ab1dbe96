"""Make one POST request with safe network settings, and translate the response into an outcome.

Connections are made only to addresses that `service/alerts/destinations/addresses.py` allows, checked at the
moment of connecting. Certificates are verified, redirects are not followed, proxies of the environment are
not used, and cookies are not kept. A timeout covers the whole attempt, and only the beginning of the response
body is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations import answers
from service.alerts.destinations.addresses import socket_factory
from service.alerts.destinations.failures import DestinationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.alerts.destinations.options import HttpOptions

_MAX_BODY = 4096
"""Maximum bytes of a response body that are read; a person sees at most 200 characters of it."""
_BODY_SECONDS = 2.0
"""Maximum seconds to read the body. A slow body changes nothing: the verdict depends on the status."""
_SMALLEST_UNIX_TIME = 1e9
"""Smallest `Retry-After` that is read as a Unix time, which some servers send, and not as a pause."""
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
_DELIVERED = range(200, 300)
_REDIRECTS = range(300, 400)
_NOT_NOW = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_FINAL = set(range(400, 500)) - _NOT_NOW

_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorDNSError, "the name was not found"),
    (aiohttp.ClientConnectorCertificateError, "its certificate is not valid"),
    (aiohttp.ClientSSLError, "no TLS connection"),
    (aiohttp.ClientConnectorError, "no connection"),
    (aiohttp.ServerDisconnectedError, "the connection was closed without an answer"),
    (aiohttp.ClientConnectionError, "the connection broke"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
    (aiohttp.ClientError, "the request failed"),
    (OSError, "the connection broke"),
    (RuntimeError, "no connection"),  # raised by uvloop for some sockets
)
"""Description of each exception for a person; the first match applies."""


def _program() -> str:
    with contextlib.suppress(PackageNotFoundError):
        return f"deltaloom/{version('deltaloom-worker')}"
    return "deltaloom"


class HttpClient:
    """HTTP connections of one destination. Create it anywhere; use it in one event loop."""

    def __init__(self, options: HttpOptions, secrets: Iterable[str] = ()) -> None:
        """Read the trusted certificates.

        Args:
            options: options of the destination.
            secrets: values that must never appear in a logged answer.

        Raises:
            DestinationError: `ca_file` cannot be used.
        """
        self._options = options
        self._secrets = frozenset(secrets)
        self._tls = _tls(options)
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], texts: Iterable[str] = ()
    ) -> Outcome:
        """Make one request; raise nothing for what the network or the receiver does.

        Args:
            url: target of the request.
            body: body of the request.
            headers: headers in addition to the common ones.
            texts: model texts in the request; an answer that repeats one is not logged.
        """
        secrets = self._secrets | _secrets_of(url)
        try:
            async with self._open().post(url, data=body, headers=headers, allow_redirects=False) as response:
                line = answers.line(await _beginning(response), secrets, texts)
                return _outcome(response, line, self._options.max_retry_after)
        except tuple(kind for kind, _ in _FAILURES) as error:
            what = next(words for kind, words in _FAILURES if isinstance(error, kind))
            return Outcome(Verdict.RETRY, answers.line(f"{what}{_cause(error)}", secrets))

    async def aclose(self) -> None:
        """Close the connections. The next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._tls, socket_factory=socket_factory(self._options.allow_addresses)
                ),
                timeout=aiohttp.ClientTimeout(total=self._options.timeout),
                headers={"User-Agent": _program(), "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # prevents decompression bombs
                trust_env=False,
            )
        return self._session


def _tls(options: HttpOptions) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise DestinationError(
            f"ca_file={str(options.ca_file)!r} cannot be used: {error.strerror or error}"
        ) from None


@lru_cache
def _secrets_of(url: str) -> frozenset[str]:
    """Return the parts of a URL that may be a password: all but the host."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}"
    return frozenset(
        {url, target, parts.path, parts.path.strip("/"), parts.query, parts.password or ""} - {""}
    )


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of the body, which may be cut off, endless or never arrive."""
    body = b""
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(_BODY_SECONDS):
            while chunk := await response.content.read(_MAX_BODY - len(body)):
                body += chunk
    return body


def _outcome(response: aiohttp.ClientResponse, line: str, max_retry_after: float) -> Outcome:
    status = response.status
    if status in _REDIRECTS:
        line = "redirects are not followed"
    answer = f"{status} {_phrase(status)}" + (f": {line}" if line else "")
    verdict = verdict_of(status)
    asked = retry_after(response.headers.get("Retry-After", "")) if verdict is Verdict.RETRY else None
    return Outcome(verdict, answer, asked and min(asked, max_retry_after))


def verdict_of(status: int) -> Verdict:
    """Return the verdict for an HTTP status. Redirects are retried, since an operator may correct them."""
    if status in _DELIVERED:
        return Verdict.DELIVERED
    if status == HTTPStatus.GONE:
        return Verdict.GONE
    return Verdict.REFUSED if status in _FINAL else Verdict.RETRY


@lru_cache
def _phrase(status: int) -> str:
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase
    return "(not in HTTP)"


def retry_after(header: str) -> float | None:
    """Return the seconds to wait that a `Retry-After` asks for; None if it cannot be read.

    It is a number of seconds or a date (RFC 9110, 10.2.3). The result is not negative and has no upper limit.
    """
    written = header.strip()
    if _SECONDS.fullmatch(written):
        seconds = float(written)
        return seconds if seconds < _SMALLEST_UNIX_TIME else max(seconds - time.time(), 0.0)
    try:
        until = parsedate_to_datetime(written)
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        return max(until.timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _cause(error: Exception) -> str:
    """Return the system's description of an error, without anything that contains the URL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f": {getattr(error.certificate_error, 'verify_message', '') or 'not trusted'}"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(
        error, aiohttp.ClientConnectorDNSError
    ):
        return f": {error.os_error.strerror or error.os_error}"
    return ""
