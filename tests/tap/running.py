"""Taps that run in the process of a test: without a copy, or with a copier in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tap.copier import Copier
from tap.copy_pipe import CopyPipe
from tap.forwarding import Forwarder
from tap.limited_server import LimitedServer
from tap.tap_counts import TapCounts
from tap.tap_settings import TapSettings
from tap.tls_site import TlsSite
from tap.upstreams import Upstream, Upstreams
from tests.waiting import wait_until

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

    from deltaloom import Publisher


@dataclass
class Running:
    """A forwarder that listens."""

    port: int
    forwarder: Forwarder
    counts: TapCounts
    pipe: CopyPipe | None

    async def outcome(self, count: int = 1) -> Mapping[tuple[str, str], int]:
        """Return the requests by upstream and outcome, once that many have ended."""
        await wait_until(lambda: sum(self.counts.requests.values()) == count, message="requests have ended")
        return self.counts.requests


def settings_of(**given: Any) -> TapSettings:
    """Return settings for a test, without those of the environment that matter here."""
    return TapSettings(**{"tap_listen": "127.0.0.1:0", **given})


@asynccontextmanager
async def forwarding(
    *urls: str,
    pipe: CopyPipe | None = None,
    tables: Mapping[str, Upstream] | None = None,
    tls: ssl.SSLContext | None = None,
    **given: Any,
) -> AsyncIterator[Running]:
    """Run a forwarder.

    Args:
        *urls: the first one is the upstream `up`, the next `up2`.
        pipe: takes the copies.
        tables: the upstreams, in place of the URLs.
        tls: the certificate; None for plain HTTP.
        **given: settings.
    """
    found = tables or {f"up{number or ''}": Upstream(url=url) for number, url in enumerate(urls, 0)}
    settings, counts = settings_of(**given), TapCounts()
    forwarder = Forwarder(Upstreams(found), settings, counts, pipe)
    await forwarder.start()
    runner = web.ServerRunner(
        LimitedServer(forwarder.handle, settings, counts), handle_signals=False, shutdown_timeout=0.01
    )
    await runner.setup()
    try:
        if tls is None:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        else:
            timeout = settings.tap_client_timeout
            await TlsSite(runner, "127.0.0.1", 0, tls, handshake_timeout=timeout).start()
        yield Running(runner.addresses[0][1], forwarder, counts, pipe)
    finally:
        await runner.cleanup()
        await forwarder.stop()


def assert_books(books: Mapping[str, Any]) -> None:
    """Assert that the books of a tap that has stopped add up to the last byte and event."""
    copier = books["copier"]
    assert books["under_way"] == books["bytes_waiting"] == copier["waiting"] == copier["open"] == 0
    assert books["bytes_from_upstreams"] == books["bytes_to_clients"] + books["bytes_undelivered"]
    assert books["bytes_copied"] == books["bytes_sent_to_copier"] + sum(books["bytes_dropped"].values())
    assert books["bytes_sent_to_copier"] == copier["taken_bytes"] + books["bytes_lost_with_copier"]
    assert copier["seen"] == copier["published"] + copier["merged"] + sum(copier["dropped"].values())


@asynccontextmanager
async def copying(
    publisher: Publisher | Any, limit: int = 16 * 2**20, publish_seconds: float = 5
) -> AsyncIterator[CopyPipe]:
    """Yield a pipe to a copier in a thread; on leaving, everything has been published."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    pipe = CopyPipe(limit)
    pipe.connect(ours)
    thread = threading.Thread(target=Copier(theirs, publisher, publish_seconds).run)
    thread.start()
    try:
        yield pipe
        await pipe.idle.wait()
    finally:
        pipe.disconnect()
        ours.close()
        await asyncio.to_thread(thread.join)
        theirs.close()
