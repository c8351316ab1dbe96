"""How fast messages may follow each other: a token bucket. Whatever has to wait waits; nothing is dropped.

Times are seconds of any one clock, which the caller reads.
"""

from __future__ import annotations


class TokenBucket:
    """Lets so many go a minute, and so many at once after a quiet time.

    Args:
        per_minute: messages, in the long run.
        burst: messages that may go at once when the bucket is full, as it is at first.
        now: the time.
    """

    def __init__(self, per_minute: float, burst: int, now: float) -> None:
        self._every = 60 / per_minute
        self._burst = burst
        self._full_at = now
        """When the bucket is full (again): all there is to know of it."""

    def wait(self, now: float) -> float:
        """Seconds until one may go; 0: now."""
        return max(0.0, self._full_at - (self._burst - 1) * self._every - now)

    def take(self, now: float) -> None:
        """One goes."""
        self._full_at = max(self._full_at, now) + self._every
