"""Decide when to retry a message, and when to pause a destination.

- A message waits for a random time below a bound that doubles with each attempt: exponential back-off with
  full jitter, so that messages that failed together do not return together.
- A destination that asks for a pause (`Retry-After`) gets it for all messages, since it is about the
  destination's load, not about one message. Critical messages wait for at most
  `LONGEST_CRITICAL_PAUSE` seconds of it.
- A destination that failed several times in a row is considered down. Then one message at a time probes it,
  at growing intervals, and all others wait.

Times are seconds of any one clock, which the caller reads.
"""

from __future__ import annotations

import random
from typing import Final

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 15 * 60.0
LONGEST_PROBE_PAUSE: Final = 60.0
"""Maximum seconds between two probes of a destination that is down, so that recovery is noticed soon."""
LONGEST_CRITICAL_PAUSE: Final = 30.0
"""Maximum seconds of a requested pause that apply to critical messages."""
DOWN_AFTER: Final = 5
"""Number of failures in a row after which a destination is considered down."""
MAX_UNDER_WAY: Final = 8
"""Maximum attempts under way at a healthy destination."""


def pause_after(attempts: int, longest: float = LONGEST_PAUSE) -> float:
    """Return the seconds to wait before the next attempt, after this number of attempts (1 or more)."""
    bound = FIRST_PAUSE * 2.0 ** min(attempts - 1, 30)
    return random.uniform(0, min(bound, longest))  # noqa: S311 - not a secret


class Health:
    """The health of a destination: its failures in a row and its pauses."""

    def __init__(self) -> None:
        self._failures = 0
        self.paused_until = 0.0
        """Time before which no message is attempted, except critical ones."""
        self.critical_paused_until = 0.0
        """Time before which no critical message is attempted."""

    @property
    def down(self) -> bool:
        """Return whether the destination is considered down."""
        return self._failures >= DOWN_AFTER

    @property
    def max_under_way(self) -> int:
        """Return the maximum number of attempts under way."""
        return 1 if self.down else MAX_UNDER_WAY

    def failed(self, now: float, asked: float | None) -> None:
        """Record a failed attempt; `asked` is the pause in seconds that the destination asked for, if any."""
        self._failures += 1
        asked = asked or 0.0
        probe = 0.0
        if self.down:
            probe = pause_after(self._failures - DOWN_AFTER + 1, LONGEST_PROBE_PAUSE)
        self.paused_until = max(self.paused_until, now + max(asked, probe))
        critical_pause = max(min(asked, LONGEST_CRITICAL_PAUSE), probe)
        self.critical_paused_until = max(self.critical_paused_until, now + critical_pause)

    def answered(self) -> bool:
        """Record that the destination accepted or declined a message. Return whether it was down before."""
        was_down, self._failures = self.down, 0
        return was_down
