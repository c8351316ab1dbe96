"""An estimate of the server's clock from the times in its replies."""

from __future__ import annotations

import time

_FAR_MS = 1000
"""Milliseconds by which a reply may be late; a later one means that the server's clock has changed."""


class ServerClock:
    """The estimated time of the server; this machine's time until the first reply."""

    def __init__(self) -> None:
        self._ahead_ms: int | None = None
        """Server time minus this process's monotonic clock, in milliseconds; None before the first reply."""

    def observe(self, server_ms: int) -> None:
        """Improve the estimate by `server_ms`, the server's time in a reply that has just arrived.

        The fastest reply is the most exact one, and decides. A reply that is more than a second behind the
        estimate replaces it: the clock was set back, or another server has answered.
        """
        ahead_ms = server_ms - _monotonic_ms()
        if self._ahead_ms is None or not self._ahead_ms - _FAR_MS <= ahead_ms <= self._ahead_ms:
            self._ahead_ms = ahead_ms

    @property
    def now_ms(self) -> int:
        """The estimated time of the server in milliseconds since the epoch; it asks no server."""
        if self._ahead_ms is None:
            return time.time_ns() // 1_000_000
        return _monotonic_ms() + self._ahead_ms


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
