"""Track the reads in progress, so that a stopping or draining worker can wait for them.

The server delivers entries when it replies. If a stopping worker drops the reply, its entries stay pending
until another worker claims them, and they count as delivered twice.

This module knows neither Redis nor FastStream. `reading_client.py` decides when a read begins and ends.
"""

from __future__ import annotations

import asyncio
import contextlib


class Reads:
    """The reads in progress, at most one per name."""

    def __init__(self) -> None:
        self._in_progress: dict[str, asyncio.Future[None]] = {}
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._ended = False

    async def begin(self, name: str) -> None:
        """Wait while reads are blocked, then register a read; no change if `name` is registered already."""
        while self.blocked:
            await self._allowed.wait()
        self.register(name)

    @property
    def blocked(self) -> bool:
        """True between `pause` and `resume`, and for ever once `drain` was called: `begin` then waits."""
        return not self._allowed.is_set()

    def pause(self) -> None:
        """Block new reads; those in progress go on."""
        self._allowed.clear()

    def resume(self) -> None:
        """Allow reads again, unless `drain` was called."""
        if not self._ended:
            self._allowed.set()

    def register(self, name: str) -> None:
        """Register the read of one stream, which is a part of a read that has begun under another name.

        Unlike `begin`, do not wait while reads are blocked. Change nothing if `name` is registered already.
        """
        if name not in self._in_progress:
            self._in_progress[name] = asyncio.get_running_loop().create_future()

    def end(self, name: str) -> None:
        """Unregister a read that has brought no entries, or whose entries were passed to the subscriber.

        Do nothing if no read has this name.
        """
        if name in self._in_progress:
            self._in_progress.pop(name).set_result(None)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - the end of the time is not an error
        """Block new reads for ever; return when no read is in progress, or after `timeout` seconds.

        An expired timeout raises no error, and the reads go on.
        """
        self._ended = True
        self.pause()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._in_progress:
                    await asyncio.wait(self._in_progress.values())
