"""Send a view to a client as server-sent events, at most ten a second.

Nothing is queued for a client: it gets the newest state when it has read the one before. One that does not
read holds one frame, costs the others nothing, and is disconnected after a while.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from console.console_server import with_headers

if TYPE_CHECKING:
    from console.live_reading import LiveReader
    from console.live_views import LiveView, ViewFrame

FRAME_SECONDS: Final = 0.1
"""Minimum seconds between two frames of a client."""

STALLED_SECONDS: Final = 30.0
"""Seconds after which a client that does not read is disconnected; it may reconnect."""

_BEAT_SECONDS: Final = 10.0
"""Seconds without news after which a comment is sent, so that proxies keep the connection."""

_COUNTERS_SECONDS: Final = 1.0
"""Minimum seconds between two frames with nothing new but counters."""

_BEHIND_SECONDS: Final = 1.0
"""Seconds that a client may take to read a frame before it is told that it is behind."""

_SOCKET_BYTES: Final = 128 * 1024
"""Bytes that the system keeps for a client that does not read: old frames would only delay new ones."""


async def send_events(request: web.BaseRequest, live: LiveReader, view: LiveView) -> web.StreamResponse:
    """Send a view until the client leaves, or does not read."""
    answer = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    with_headers(answer)
    _limit_socket(request)
    async with live.watched_by(view):
        since = _version_in(request.headers.get("Last-Event-ID", ""), live.run)
        try:
            await answer.prepare(request)
            await _send_all(answer, live, view, since)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
    return answer


async def _send_all(answer: web.StreamResponse, live: LiveReader, view: LiveView, since: int | None) -> None:
    """Send frames until the client leaves.

    Raises:
        TimeoutError: the client has not read for long.
        ConnectionError: the client has left.
    """
    is_slow, sent_at = False, 0.0
    while True:
        frame, began = view.frame(since), time.monotonic()
        if frame is None:
            is_due = began - sent_at >= _BEAT_SECONDS
        else:
            is_due = not frame.is_empty or began - sent_at >= _COUNTERS_SECONDS
        if is_due:
            written = b": \n\n" if frame is None else _written(frame, live, behind=is_slow or live.behind)
            async with asyncio.timeout(STALLED_SECONDS):
                await answer.write(written)
            since = since if frame is None else frame.version
            sent_at = time.monotonic()
            is_slow = sent_at - began > _BEHIND_SECONDS
        await asyncio.sleep(FRAME_SECONDS - (time.monotonic() - began))
        if since is not None:
            await live.news(since, _BEAT_SECONDS)


def _written(frame: ViewFrame, live: LiveReader, *, behind: bool) -> bytes:
    head = f'event: {frame.event}\nid: {live.run}-{frame.version}\ndata: {{"at":{round(time.time() * 1000)},'
    return f'{head}"behind":{"true" if behind else "false"},'.encode() + frame.body + b"\n\n"


def _version_in(event_id: str, run: str) -> int | None:
    """Return the version that a client has; None if it is of another run, or none."""
    of_run, _, version = event_id.partition("-")
    fits = of_run == run and version.isascii() and version.isdecimal() and len(version) < len(str(2**63))
    return int(version) if fits else None


def _limit_socket(request: web.BaseRequest) -> None:
    transport = request.transport
    sock: Any = None if transport is None else transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
