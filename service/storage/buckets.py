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
"""Number of whole buckets in a window, besides the current one. The window moves by a tenth of its length."""

BASELINE_STEPS = 24
"""Number of whole buckets in a baseline, besides the current one: one per hour for a baseline of a day."""

MAX_NAMES = 1000
"""Maximum names in a bucket, of models, tenants and providers together. A further name replaces a rare one,
whose responses then count under `(other)`."""

NAME_LENGTH = 200
"""Maximum characters of a name in a bucket; the rest is cut off."""


class Series(NamedTuple):
    """Buckets of equal width (`width_ms`).

    Readers sum up the current bucket and those of the last `span_ms` before it. Times are in milliseconds
    since the epoch.
    """

    width_ms: int
    span_ms: int

    def start(self, at_ms: int) -> int:
        """Return the time at which the bucket that contains `at_ms` begins."""
        return at_ms - at_ms % self.width_ms

    def expires(self, start_ms: int) -> int:
        """Return the time from which the bucket that begins at `start_ms` may be deleted.

        Readers stop reading it one bucket width earlier.
        """
        return start_ms + self.span_ms + 2 * self.width_ms

    def since(self, now_ms: int) -> int:
        """Return the time at which the oldest bucket that is read at `now_ms` begins."""
        return self.start(now_ms) - self.span_ms

    def keys(self, keys: Keys, now_ms: int) -> list[str]:
        """Return the keys of all buckets that are read at `now_ms`, from the oldest to the current one."""
        return [keys.rates(self.width_ms, start) for start in self._starts(now_ms)]

    def keys_of_names(self, keys: Keys, now_ms: int) -> list[str]:
        """Return the keys of the sorted sets of names of the same buckets as `keys`, in the same order."""
        return [keys.rate_names(self.width_ms, start) for start in self._starts(now_ms)]

    def _starts(self, now_ms: int) -> range:
        return range(self.since(now_ms), now_ms + 1, self.width_ms)


def window_of(settings: Settings) -> Series:
    """Return the narrow buckets, whose span is the window (`Settings.spike_window`)."""
    return _series(settings.spike_window, WINDOW_STEPS)


def baseline_of(settings: Settings) -> Series:
    """Return the wide buckets, whose span is the baseline (`Settings.spike_baseline`)."""
    return _series(settings.spike_baseline, BASELINE_STEPS)


def _series(seconds: float, steps: int) -> Series:
    width_ms = max(1, round(seconds * 1000 / steps))
    return Series(width_ms, width_ms * steps)
