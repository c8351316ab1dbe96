"""When to try again: of a message, by how often it failed; of a destination, by how often all did.

- A message waits for a random time below a bound that doubles with each attempt: exponential back-off with
  full jitter, so that what failed together does not come back together.
- A destination that asked for a pause (`Retry-After`) gets it, for all messages: it said what it can take,
  not what it thinks of one.
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
LONGEST_ASKED: Final = 86400.0
"""Of a `Retry-After`: no alert is owed for longer."""
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
        pause = min(asked or 0.0, LONGEST_ASKED)
        if self.down:
            pause = max(pause, pause_after(self._failures - DOWN_AFTER + 1, LONGEST_PROBE_PAUSE))
        self.paused_until = max(self.paused_until, now + pause)

    def answered(self) -> bool:
        """It took a message, or declined it; whether it had been down."""
        was_down, self._failures = self.down, 0
        return was_down
