"""Reads that are under way: when a worker stops, the last ones are waited for.

The server gives entries to a consumer as it answers. An answer that nobody waits for any more is not lost,
but its entries are left to other workers, who find them later, and count them as delivered twice.
"""

from __future__ import annotations

import asyncio


class Reads:
    """Of each stream, one at a time."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._no_more = False

    async def begin(self, stream: str) -> None:
        """Begin one; there is no coming back from this, if there are to be no more."""
        if self._no_more:
            await asyncio.get_running_loop().create_future()
        if stream not in self._under_way:
            self._under_way[stream] = asyncio.get_running_loop().create_future()

    def end(self, stream: str) -> None:
        """It has brought nothing, or what it has brought is taken."""
        if stream in self._under_way:
            self._under_way.pop(stream).set_result(None)

    async def no_more(self, timeout: float) -> None:  # noqa: ASYNC109 - what comes then is left to others
        """Let none begin any more; come back when those under way have ended, or after so many seconds."""
        self._no_more = True
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=timeout)
