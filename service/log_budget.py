"""Limit the log lines of one level and event in a window of time, and report how many were left out.

A storm of refusals or dead letters would otherwise write some hundred megabytes an hour, and fill a disk.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW: Final = 10.0
"""Seconds of a window. It begins with the first line after the end of the previous one."""
SEVERE: Final = frozenset({"error", "critical"})
"""Levels with a larger budget."""
SEVERE_FACTOR: Final = 2
"""Budget of a severe level, as a multiple of that of the others."""

_MAX_NAMES: Final = 500
"""Maximum pairs of level and name in a window; further ones share a budget."""
_OTHERS: Final = "(other)"


class LogBudget:
    """The budgets of all levels and names in the current window.

    Args:
        burst: maximum lines of one level and name in a window; 0 for no limit.
        report: is called for each level and name with the number of lines left out, and the seconds.
        on_overflow: is called when the first line of a window is left out, with the seconds to its end.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        burst: int,
        report: Callable[[str, str, int, float], object],
        on_overflow: Callable[[float], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._report = report
        self._on_overflow = on_overflow
        self._clock = clock
        self._began = self._ends = float("-inf")
        self._overflowed = False
        self._lines: dict[tuple[str, str], int] = {}

    def admits(self, level: str, name: str) -> bool:
        """Count a line, and return whether it may be written.

        Args:
            level: level of the line, in lower case.
            name: the line's event, or for lines of libraries the name of their logger.
        """
        if not self._burst:
            return True
        now = self._clock()
        if now >= self._ends:
            self.end_window()
            self._began, self._ends = now, now + WINDOW
        key = (level, name)
        count = self._lines.get(key, 0) + 1
        if count == 1 and len(self._lines) >= _MAX_NAMES:
            key = (level, _OTHERS)
            count = self._lines.get(key, 0) + 1
        self._lines[key] = count
        if count <= self._limit(level):
            return True
        if not self._overflowed:
            self._overflowed = True
            self._on_overflow(self._ends - now)
        return False

    def end_window_if_over(self) -> None:
        """End the window if its time is over."""
        if self._clock() >= self._ends:
            self.end_window()

    def end_window(self) -> None:
        """End the window, and report the lines that it left out."""
        lines, self._lines = self._lines, {}
        overflowed, self._overflowed = self._overflowed, False
        seconds, self._ends = min(self._clock() - self._began, WINDOW), float("-inf")
        if not overflowed:
            return
        for (level, name), count in lines.items():
            if count > self._limit(level):
                self._report(level, name, count - self._limit(level), seconds)

    def _limit(self, level: str) -> int:
        return self._burst * SEVERE_FACTOR if level in SEVERE else self._burst
