"""Compare the refusal share of a window with that of its baseline, by a standard two-proportion test.

A window is a *spike* if all of these conditions hold:

1. The window and the baseline each have enough responses, and the window has at least ten refusals.
2. The difference is significant: the z of the two-proportion test with pooled variance
   (https://www.itl.nist.gov/div898/handbook/prc/section3/prc33.htm) reaches the configured score.
3. The difference is large: with a ratio of 2, the share of refusals has doubled, or the share of other
   responses has halved. Among a million responses, 1.1 % is significantly more than 1.0 %, but too little
   for an alert.

A spike is *calm* if condition 2 fails with half the score, or condition 3 with the square root of the ratio.
So a share near a threshold does not begin and end a spike at every look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

REFUSED_AT_LEAST = 10
"""Minimum refusals in a window; with fewer, the normal distribution is a poor approximation."""


class Count(NamedTuple):
    """The number of responses that ended in a time span, and of those that were refused or blocked."""

    responses: int = 0
    refused: int = 0
    blocked: int = 0
    """Responses that a filter, a policy or a guardrail stopped; `refused` does not include them."""

    @property
    def share(self) -> float:
        """The share of refused responses, from 0 to 1; 0 if there are no responses."""
        return self._share_of(self.refused)

    @property
    def blocked_share(self) -> float:
        """The share of blocked responses, from 0 to 1; 0 if there are no responses."""
        return self._share_of(self.blocked)

    def plus(self, other: Count) -> Count:
        """Return the sum of both counts."""
        return Count(*(mine + others for mine, others in zip(self, other, strict=True)))

    def without(self, part: Count) -> Count:
        """Return the count without `part`; no value is below 0."""
        return Count(*(max(0, mine - others) for mine, others in zip(self, part, strict=True)))

    def _share_of(self, some: int) -> float:
        return some / self.responses if self.responses else 0.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds of a spike."""

    responses: int
    """Minimum responses, both in the window and in the baseline."""
    ratio: float
    """Minimum factor by which the refusal share grows, or by which the share of other responses shrinks."""
    score: float
    """Minimum difference in standard errors."""


def score(window: Count, baseline: Count) -> float:
    """Return the difference of the refusal shares in standard errors; 0 if there is nothing to compare."""
    if not window.responses or not baseline.responses:
        return 0.0
    pooled = window.plus(baseline).share
    variance = pooled * (1 - pooled) * (1 / window.responses + 1 / baseline.responses)
    return (window.share - baseline.share) / math.sqrt(variance) if variance else 0.0


def is_spike(window: Count, baseline: Count, thresholds: Thresholds) -> bool:
    """Return whether the window is a spike: see the module's docstring."""
    enough = (
        min(window.responses, baseline.responses) >= thresholds.responses
        and window.refused >= REFUSED_AT_LEAST
    )
    return (
        enough
        and score(window, baseline) >= thresholds.score
        and _matters(window.share, baseline.share, thresholds.ratio)
    )


def is_calm(window: Count, baseline: Count, thresholds: Thresholds) -> bool:
    """Return whether a spike is over: the share is near the baseline's again, or no responses come."""
    return score(window, baseline) < thresholds.score / 2 or not _matters(
        window.share, baseline.share, math.sqrt(thresholds.ratio)
    )


def _matters(share: float, before: float, ratio: float) -> bool:
    return share >= min(before * ratio, 1 - (1 - before) / ratio)
