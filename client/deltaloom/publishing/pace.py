"""Decide when the thread of a publisher sends: linger time, pauses that save processor time, back-off."""

from __future__ import annotations

import time
from typing import Final

WORK_SHARE: Final = 0.03
"""Share of a core that the thread may take. Above it, deltas wait longer, up to `_MAX_PAUSE`."""

_MAX_PAUSE: Final = 0.25
"""Maximum seconds for which deltas wait to save processor time."""

_WARM: Final = 1.0
"""Seconds after the last work for which the thread looks for events by itself."""

_FIRST_BACKOFF: Final = 0.05
_MAX_BACKOFF: Final = 2.0
"""Seconds until the next attempt after a failure: after the first one, and at most."""


class Pace:
    """The times at which the thread sends.

    Args:
        linger: seconds for which deltas wait for others.
    """

    def __init__(self, linger: float) -> None:
        self._linger = linger
        self._due = time.monotonic() + linger
        self._retry_at = 0.0
        self._backoff = 0.0
        self._warm_until = 0.0

    def is_due(self) -> bool:
        """Return True if the linger time is over."""
        return time.monotonic() >= self._due

    def until_due(self) -> float:
        """Return the seconds until the linger time is over."""
        return max(0.0, self._due - time.monotonic())

    def may_send(self) -> bool:
        """Return True if the pause after the last failure is over."""
        return time.monotonic() >= self._retry_at

    def until_retry(self) -> float:
        """Return the seconds until the next attempt after a failure."""
        return max(0.0, self._retry_at - time.monotonic())

    def restart(self) -> None:
        """Begin the linger time after an idle time."""
        self._due = max(self._due, time.monotonic() + self._linger)

    def is_warm(self) -> bool:
        """Return True if there was something to do a short time ago."""
        return time.monotonic() < self._warm_until

    def skip(self) -> None:
        """Begin the next linger time, since there was nothing to send."""
        self._due = time.monotonic() + self._linger

    def note(self, error: str | None, worked: float, *, is_whole: bool) -> None:
        """Note the end of a round.

        Args:
            error: name of its error, or None.
            worked: processor time that it took, in seconds; the next round is later accordingly.
            is_whole: False if only urgent events were sent.
        """
        now = time.monotonic()
        self._warm_until = now + _WARM
        if is_whole:
            self._due = now + max(self._linger, min(_MAX_PAUSE, worked / WORK_SHARE))
        if error is None:
            self._backoff = 0.0
        else:
            self._backoff = min(_MAX_BACKOFF, max(_FIRST_BACKOFF, self._backoff * 2))
            self._retry_at = now + self._backoff
