"""When to try again: of a message, by how often it failed; of a destination, by how often all did.

- A message waits for a random time below a bound that doubles with each attempt: exponential back-off with
  full jitter, so that what failed together does not come back together.
- A destination that asked for a pause (`Retry-After`) gets it, for all messages: it said what it can take,
  not what it thinks of one. Critical messages wait only for the first seconds of a long pause.
- One that failed several times in a row is taken to be down. Then one message at a time finds out whether it
  is back, at growing intervals, and all others wait for it.

Times are seconds of any one clock, which the caller reads.
"""

from __future__ import annotations

import random
from typing import Final

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 15 * 60.0
LONGEST_PROBE_PAUSE: Final = 60.0
"""Between two attempts at a destination that is down: what waits should hear soon that it is back."""
LONGEST_CRITICAL_PAUSE: Final = 30.0
"""How much of a pause that a destination asked for holds for critical messages."""
DOWN_AFTER: Final = 5
"""Failures in a row."""
AT_ONCE: Final = 8
"""Attempts at a destination that is well."""


def pause_after(attempts: int, longest: float = LONGEST_PAUSE) -> float:
    """Seconds before the next attempt, after so many (1 or more)."""
    bound = FIRST_PAUSE * 2.0 ** min(attempts - 1, 30)
    return random.uniform(0, min(bound, longest))  # noqa: S311 - not a secret


class Health:
    """How a destination is."""

    def __init__(self) -> None:
        self._failures = 0
        self.paused_until = 0.0
        """No attempt before, except for critical messages."""
        self.critical_paused_until = 0.0
        """No attempt before."""

    @property
    def down(self) -> bool:
        """Whether it is taken to be down."""
        return self._failures >= DOWN_AFTER

    @property
    def at_once(self) -> int:
        """How many attempts may be under way."""
        return 1 if self.down else AT_ONCE

    def failed(self, now: float, asked: float | None) -> None:
        """An attempt failed, and the destination asked for a pause of so many seconds, or for none."""
        self._failures += 1
        asked = asked or 0.0
        probe = 0.0
        if self.down:
            probe = pause_after(self._failures - DOWN_AFTER + 1, LONGEST_PROBE_PAUSE)
        self.paused_until = max(self.paused_until, now + max(asked, probe))
        critical_pause = max(min(asked, LONGEST_CRITICAL_PAUSE), probe)
        self.critical_paused_until = max(self.critical_paused_until, now + critical_pause)

    def answered(self) -> bool:
        """It took a message, or declined it; whether it had been down."""
        was_down, self._failures = self.down, 0
        return was_down
