"""Track the reads in progress, so that a stopping worker can wait for them.

The server delivers entries when it replies. If a stopping worker drops the reply, its entries stay pending
until another worker claims them, and they count as delivered twice.
"""

from __future__ import annotations

import asyncio


class Reads:
    """The reads in progress, at most one per stream."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._no_more = False

    async def begin(self, stream: str) -> None:
        """Register a read. Block forever once `no_more` was called."""
        if self._no_more:
            await asyncio.get_running_loop().create_future()
        if stream not in self._under_way:
            self._under_way[stream] = asyncio.get_running_loop().create_future()

    def end(self, stream: str) -> None:
        """Unregister a read that has no entries, or with entries that were processed."""
        if stream in self._under_way:
            self._under_way.pop(stream).set_result(None)

    async def no_more(self, timeout: float) -> None:  # noqa: ASYNC109 - the end of the time is not an error
        """Block new reads; return when all reads in progress have ended, or after `timeout` seconds."""
        self._no_more = True
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=timeout)
