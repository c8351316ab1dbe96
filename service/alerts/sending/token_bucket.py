"""Limit the rate of messages by a token bucket. Messages wait; none is dropped.

Times are seconds of any one clock, which the caller reads.
"""

from __future__ import annotations


class TokenBucket:
    """A token bucket with a rate per minute and a burst after a quiet time.

    Args:
        per_minute: messages per minute in the long run.
        burst: messages that may be sent at once from a full bucket; the bucket is full at first.
        now: the current time.
    """

    def __init__(self, per_minute: float, burst: int, now: float) -> None:
        self._every = 60 / per_minute
        self._burst = burst
        self._full_at = now
        """Time at which the bucket is full again; this is its entire state."""

    def seconds_until_token(self, now: float) -> float:
        """Return the seconds until a message may be sent; 0 means now."""
        return max(0.0, self._full_at - (self._burst - 1) * self._every - now)

    def consume(self, now: float) -> None:
        """Take a token for a message that is sent."""
        self._full_at = max(self._full_at, now) + self._every
