"""Counts of what happened within the last minute."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_MINUTE_MS: Final = 60_000
_STEP_MS: Final = 1000
_NAMES: Final = ("alerts", "undelivered")


class MinuteCounts:
    """Counts by second, of the last 60."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, Counter[str]]] = deque()

    def add(self, name: str, at_ms: int, now_ms: int) -> None:
        """Count something that happened at a time, unless that is more than a minute ago.

        A time in the future counts as now, so that it is forgotten in a minute.
        """
        self.forget(now_ms)
        if at_ms <= now_ms - _MINUTE_MS:
            return
        second = min(at_ms, now_ms) // _STEP_MS
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append((second, Counter()))
        self._seconds[-1][1][name] += 1

    def forget(self, now_ms: int) -> None:
        """Forget what is older than a minute."""
        while self._seconds and self._seconds[0][0] * _STEP_MS <= now_ms - _MINUTE_MS:
            self._seconds.popleft()

    def to_json(self) -> Mapping[str, int]:
        """Return the counts by name."""
        total: Counter[str] = Counter()
        for _, counts in self._seconds:
            total.update(counts)
        return {name: total[name] for name in _NAMES}
