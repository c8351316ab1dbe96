"""Time buckets that count responses: narrow ones for a sliding window, wide ones for its baseline.

Each response that is over counts in one bucket of each width, by the time of its end. The window is the sum
of the narrow buckets since its beginning. The baseline is the sum of the wide buckets minus the window. So
both sums are exact and the same for every worker; only the window's beginning moves in steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from service.keys import Keys
    from service.settings import Settings

WINDOW_STEPS = 10
"""Number of buckets in a window; the window slides by a tenth of its length."""

BASELINE_STEPS = 24
"""Number of buckets in a baseline: one per hour for a baseline of a day."""

MAX_NAMES = 1000
"""Maximum number of models, tenants and providers in a bucket; further ones count as `(other)`."""

NAME_LENGTH = 200
"""Maximum characters of a name; the rest is cut off."""


class Series(NamedTuple):
    """Buckets of one width (`width_ms`), of which the last `span_ms` are read."""

    width_ms: int
    span_ms: int

    def start(self, at_ms: int) -> int:
        """Return the beginning of the bucket that contains a time."""
        return at_ms - at_ms % self.width_ms

    def expires(self, start_ms: int) -> int:
        """Return the time at which a bucket may be deleted, because it is no longer read."""
        return start_ms + self.span_ms + 2 * self.width_ms

    def since(self, now_ms: int) -> int:
        """Return the beginning of the first bucket that is read."""
        return self.start(now_ms) - self.span_ms

    def keys(self, keys: Keys, now_ms: int) -> list[str]:
        """Return the keys of all buckets of the series at `now_ms`, from the oldest to the current one."""
        return [keys.rates(self.width_ms, start) for start in self._starts(now_ms)]

    def keys_of_names(self, keys: Keys, now_ms: int) -> list[str]:
        """Return the keys of the sorted sets with the names in these buckets."""
        return [keys.rate_names(self.width_ms, start) for start in self._starts(now_ms)]

    def _starts(self, now_ms: int) -> range:
        return range(self.since(now_ms), now_ms + 1, self.width_ms)


def window_of(settings: Settings) -> Series:
    """Return the series of narrow buckets."""
    return _series(settings.spike_window, WINDOW_STEPS)


def baseline_of(settings: Settings) -> Series:
    """Return the series of wide buckets."""
    return _series(settings.spike_baseline, BASELINE_STEPS)


def _series(seconds: float, steps: int) -> Series:
    width_ms = max(1, round(seconds * 1000 / steps))
    return Series(width_ms, width_ms * steps)
