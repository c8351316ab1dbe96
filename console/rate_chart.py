"""The responses that ended in each step of the last half hour, as the workers have counted them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from console.rate_counts import totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from console.rate_counts import RateCounts
    from service.rates.proportions import Count

_SPAN_MS: Final = 30 * 60_000
_MINUTE_MS: Final = 60_000


class RateChart:
    """Counts by step, collected from the workers' narrow buckets, which are gone soon.

    Args:
        counts: reads the buckets.
    """

    def __init__(self, counts: RateCounts) -> None:
        self._counts = counts
        self._steps: dict[int, tuple[int, Count]] = {}
        """Version and counts of each step, by its beginning."""
        self._now_ms = 0

    async def read(self, version: int) -> bool:
        """Read the latest buckets, and give changed steps this version; return whether one has changed.

        Raises:
            StorageUnavailableError: the server is away; read again.
        """
        self._now_ms, buckets = await self._counts.narrow()
        is_new = False
        for start, by_subject in buckets.items():
            count = totals(by_subject)
            if start not in self._steps or self._steps[start][1] != count:
                self._steps[start] = version, count
                is_new = True
        for start in [each for each in self._steps if each < self._now_ms - _SPAN_MS]:
            del self._steps[start]
        return is_new

    def rows_since(self, version: int) -> dict[str, Any]:
        """Return the steps that changed after a version, oldest first."""
        rows = [
            [start, count.responses, count.refused, count.blocked]
            for start, (at, count) in sorted(self._steps.items())
            if at > version
        ]
        return {"step_ms": self._counts.step_ms, "rows": rows}

    def last_minute(self) -> Mapping[str, int]:
        """Return the counts of the steps of the last minute, which may begin up to a step before it."""
        since = self._now_ms - _MINUTE_MS - self._counts.step_ms
        counts = [count for start, (_, count) in self._steps.items() if start > since]
        return {
            "ended": sum(count.responses for count in counts),
            "refused": sum(count.refused for count in counts),
            "blocked": sum(count.blocked for count in counts),
        }
