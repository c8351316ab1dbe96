"""Measure the time of the demo in seconds since its programme began, and its pace."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Clock:
    """A clock that stands at 0 until it is started."""

    pace: float = 1.0
    """Factor by which the programme runs faster than natural."""
    _started: float | None = None

    def start(self) -> None:
        """Start the programme's time."""
        self._started = time.monotonic()

    @property
    def now(self) -> float:
        """Return the real seconds since the start."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def until(self, at: float) -> float:
        """Return the real seconds until `at` seconds of the programme; 0 if that has passed."""
        return max(0.0, at / self.pace - self.now)
