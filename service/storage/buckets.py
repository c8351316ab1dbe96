"""How responses are counted by time: in narrow buckets for a sliding window, in wide ones for its baseline.

Each response that is over counts in one bucket of either width, by when it ended. The window is the narrow
buckets since its beginning; the baseline is what the wide ones have beyond that. So both are exact sums, the
same for every worker, and only the window's beginning moves in steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from service.keys import Keys
    from service.settings import Settings

WINDOW_STEPS = 10
"""Buckets in a window: it slides by a tenth of itself."""

BASELINE_STEPS = 24
"""Buckets in a baseline: with a day, one for each hour."""

NAMES_AT_MOST = 1000
"""Models, tenants and providers counted by name in a bucket; what is beyond counts as `(other)`."""

NAME_LENGTH = 200
"""Characters of a name that are kept."""


class Series(NamedTuple):
    """Buckets of one width, of which the last so many milliseconds are of interest."""

    width_ms: int
    span_ms: int

    def start(self, at_ms: int) -> int:
        """Where the bucket of a time begins."""
        return at_ms - at_ms % self.width_ms

    def expires(self, start_ms: int) -> int:
        """When nobody will ask for a bucket any more."""
        return start_ms + self.span_ms + 2 * self.width_ms

    def since(self, now_ms: int) -> int:
        """Where the first bucket of interest begins."""
        return self.start(now_ms) - self.span_ms

    def keys(self, keys: Keys, now_ms: int) -> list[str]:
        """The buckets of interest, the one of now too."""
        return [keys.rates(self.width_ms, start) for start in self._starts(now_ms)]

    def keys_of_names(self, keys: Keys, now_ms: int) -> list[str]:
        """Return the keys that have the names in these buckets."""
        return [keys.rate_names(self.width_ms, start) for start in self._starts(now_ms)]

    def _starts(self, now_ms: int) -> range:
        return range(self.since(now_ms), now_ms + 1, self.width_ms)


def window_of(settings: Settings) -> Series:
    """The narrow buckets."""
    return _series(settings.spike_window, WINDOW_STEPS)


def baseline_of(settings: Settings) -> Series:
    """The wide buckets."""
    return _series(settings.spike_baseline, BASELINE_STEPS)


def _series(seconds: float, steps: int) -> Series:
    width_ms = max(1, round(seconds * 1000 / steps))
    return Series(width_ms, width_ms * steps)
