"""The server's clock, as its answers tell it."""

from __future__ import annotations

import time

_FAR_MS = 1000
"""Milliseconds by which an answer may be late before its time is taken for another clock's."""


class ServerClock:
    """The time that a server would give now, without asking it; this machine's time until it has told one."""

    def __init__(self) -> None:
        self._ahead_ms: int | None = None
        """How far it is ahead of this process's monotonic clock."""

    def told(self, server_ms: int) -> None:
        """Note the time in an answer that came just now. The quickest answer is the most exact.

        An answer that is far behind the others is of a clock that was set back, or of another server.
        """
        ahead_ms = server_ms - _monotonic_ms()
        if self._ahead_ms is None or not self._ahead_ms - _FAR_MS <= ahead_ms <= self._ahead_ms:
            self._ahead_ms = ahead_ms

    @property
    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        if self._ahead_ms is None:
            return time.time_ns() // 1_000_000
        return _monotonic_ms() + self._ahead_ms


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
