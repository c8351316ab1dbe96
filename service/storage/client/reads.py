"""Track the reads in progress, so that a stopping worker can wait for them.

The server delivers entries when it replies. If a stopping worker drops the reply, its entries stay pending
until another worker claims them, and they count as delivered twice.

This module knows neither Redis nor FastStream. `reading_client.py` decides when a read begins and ends.
"""

from __future__ import annotations

import asyncio


class Reads:
    """The reads in progress, at most one per stream."""

    def __init__(self) -> None:
        self._in_progress: dict[str, asyncio.Future[None]] = {}
        self._draining = False

    async def begin(self, stream: str) -> None:
        """Register a read. Block forever once `drain` was called."""
        if self._draining:
            await asyncio.get_running_loop().create_future()
        if stream not in self._in_progress:
            self._in_progress[stream] = asyncio.get_running_loop().create_future()

    def end(self, stream: str) -> None:
        """Unregister a read: it has brought no entries, or the subscriber function has returned."""
        if stream in self._in_progress:
            self._in_progress.pop(stream).set_result(None)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - the end of the time is not an error
        """Block new reads; return when all reads in progress have ended, or after `timeout` seconds."""
        self._draining = True
        if self._in_progress:
            await asyncio.wait(self._in_progress.values(), timeout=timeout)
