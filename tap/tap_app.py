"""Compose a tap: the servers, the forwarder, and the copier's process.

It sets no signal handlers and no logging, so it can run in the process of a test.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from aiohttp import web

from service import logs
from service.secret_files import SecretFileError, secret_in
from service.settings import SettingsError, host_and_port, variable
from tap.copier_process import CopierProcess
from tap.copy_pipe import CopyPipe
from tap.forwarding import Forwarder
from tap.ingest import Ingest
from tap.limited_server import LimitedServer
from tap.tap_counts import TapCounts
from tap.tls_site import TlsSite

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.observability.metrics.samples import Samples
    from tap.copy_frames import CopierSettings
    from tap.tap_settings import TapSettings
    from tap.upstreams import Upstreams

_COPIER_SECONDS = 15.0
"""Maximum seconds for the copier to publish what is left and to end."""
_ABORT_SECONDS = 1.0
"""Seconds for handlers to end after their connections were closed."""


def _copier_settings(settings: TapSettings) -> CopierSettings:
    return {
        "redis_url": settings.redis_url,
        "redis_mode": settings.redis_mode,
        "prefix": settings.prefix,
        "partitions": settings.partitions,
        "budget": settings.tap_publish_buffer,
        "max_event_bytes": settings.max_event_bytes,
    }


class TapApp:
    """A tap.

    Args:
        settings: its settings.
        upstreams: where requests may go.
        shares_port: True if other processes listen at the same address.
    """

    def __init__(self, settings: TapSettings, upstreams: Upstreams, *, shares_port: bool = False) -> None:
        self._settings = settings
        self._shares_port = shares_port
        self.counts = TapCounts()
        self.pipe = CopyPipe(settings.tap_copy_buffer)
        self.copier = CopierProcess(self.pipe, _copier_settings(settings))
        self.forwarder = Forwarder(upstreams, settings, self.counts, self.pipe)
        self._runners: list[web.ServerRunner] = []
        self._is_stopping = False
        self.port = 0
        """Port of the proxy, once it has started."""
        self.ingest_port = 0
        """Port of the ingest, if there is one."""

    @property
    def started(self) -> bool:
        """True once it listens."""
        return self.port > 0

    def not_ready(self) -> list[str]:
        """Return the reasons why it cannot serve now. An unavailable Redis is not one of them."""
        return ["stopping"] if self._is_stopping else [] if self.started else ["starting"]

    async def status(self) -> dict[str, Any]:
        """Return its state as JSON values, for people."""
        return self.books()

    async def start(self) -> None:
        """Start to serve.

        Raises:
            SettingsError: an address, a certificate or a token cannot be used.
        """
        settings = self._settings
        tls = self._tls()
        token = self._token()
        await self.copier.start()
        await self.forwarder.start()
        self.port = await self._listen("tap_listen", settings.tap_listen, self.forwarder.handle, tls)
        if settings.tap_ingest:
            ingest = Ingest(settings, self.counts, self.pipe, token)
            self.ingest_port = await self._listen("tap_ingest", settings.tap_ingest, ingest.handle, None)
        logs.logger().info("tap started", port=self.port, ingest_port=self.ingest_port or None)

    async def stop(self) -> None:
        """Accept no more connections, let streams end in time, publish their copies, and log the books."""
        self._is_stopping = True
        # aiohttp would wait twice for this time: for the handlers, then for their cancellation.
        ending = asyncio.get_running_loop().call_later(self._settings.tap_shutdown_timeout, self._abort)
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        ending.cancel()
        await self.forwarder.stop()
        await self.copier.stop(_COPIER_SECONDS)
        logs.logger().info("tap stopped", **self.books())

    def _abort(self) -> None:
        """End what has not ended in time."""
        self.forwarder.stopping()
        for runner in self._runners:
            if isinstance(runner.server, LimitedServer):
                runner.server.abort()

    def samples(self) -> Samples:
        """Return the values of its metrics."""
        from tap.tap_figures import samples_of  # noqa: PLC0415 - only if metrics are asked for

        return samples_of(
            self.counts,
            self.pipe,
            self.copier.figures(),
            under_way=len(self.forwarder.exchanges),
            restarts=self.copier.restarts,
            lost_bytes=self.copier.lost_bytes,
        )

    def books(self) -> dict[str, Any]:
        """Return all counts: requests, bytes, copies and events."""
        counts, pipe = self.counts, self.pipe
        return {
            "requests": sum(counts.requests.values()),
            "under_way": len(self.forwarder.exchanges),
            "bytes_from_upstreams": counts.from_upstreams,
            "bytes_to_clients": counts.to_clients,
            "bytes_undelivered": counts.undelivered,
            "bytes_copied": counts.copied + counts.ingested,
            "bytes_sent_to_copier": pipe.sent_bytes,
            "bytes_waiting": pipe.waiting_body_bytes,
            "bytes_dropped": dict(pipe.dropped_bytes),
            "bytes_lost_with_copier": self.copier.lost_bytes,
            "copies": pipe.copies,
            "copies_dropped": dict(pipe.dropped_copies),
            "not_copied": dict(counts.not_copied),
            "copier": self.copier.figures(),
            "copier_restarts": self.copier.restarts,
        }

    async def _listen(
        self,
        setting: str,
        address: str,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        tls: ssl.SSLContext | None,
    ) -> int:
        """Serve at an address; return the port.

        Raises:
            SettingsError: the address cannot be used.
        """
        runner = web.ServerRunner(
            LimitedServer(handler, self._settings, self.counts),
            handle_signals=False,
            shutdown_timeout=self._settings.tap_shutdown_timeout + _ABORT_SECONDS,
        )
        await runner.setup()
        self._runners.append(runner)
        host, port = host_and_port(address)
        site: web.BaseSite
        if tls is None:
            site = web.TCPSite(runner, host, port, reuse_port=self._shares_port or None, backlog=1024)
        else:
            site = TlsSite(
                *(runner, host, port, tls),
                handshake_timeout=self._settings.tap_client_timeout,
                reuse_port=self._shares_port,
            )
        try:
            await site.start()
        except OSError as error:
            raise SettingsError(
                f"{variable(setting)}={address!r} cannot be used: {error.strerror or error}"
            ) from None
        bound: int = runner.addresses[0][1]
        return bound

    def _tls(self) -> ssl.SSLContext | None:
        """Return the proxy's certificate; None for plain HTTP.

        Raises:
            SettingsError: the certificate cannot be used.
        """
        certificate, key = self._settings.tap_tls_certificate, self._settings.tap_tls_key
        if certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"DELTALOOM_TAP_TLS_CERTIFICATE={str(certificate)!r} cannot be used with its key: "
                f"{error.strerror or type(error).__name__}"
            ) from None
        return context

    def _token(self) -> bytes | None:
        """Return the token that the ingest requires; None if it requires none.

        Raises:
            SettingsError: the file cannot be used.
        """
        file = self._settings.tap_ingest_token_file
        if file is None:
            return None
        try:
            return secret_in(file).encode()
        except SecretFileError as error:
            raise SettingsError(f"DELTALOOM_TAP_INGEST_TOKEN_FILE: {error}") from None
