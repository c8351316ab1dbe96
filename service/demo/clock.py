"""The time of the demo: seconds since its programme began, and the pace at which that runs."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Clock:
    """Stands at 0 until it is started."""

    pace: float = 1.0
    """How many times faster than natural the programme runs."""
    _started: float | None = None

    def start(self) -> None:
        """Let the programme begin."""
        self._started = time.monotonic()

    @property
    def now(self) -> float:
        """Real seconds since the beginning."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def until(self, at: float) -> float:
        """Real seconds to wait for a moment of the programme; 0 if it has passed."""
        return max(0.0, at / self.pace - self.now)
