"""Is far more refused than before? Two shares, compared by a test that a textbook has.

A *spike* is a window in which all of this holds:

1. there are enough responses to speak of a share, in the window and before it, and at least ten refusals;
2. the two shares are further apart than chance makes them: the z of the two-proportion test with pooled
   variance (https://www.itl.nist.gov/div898/handbook/prc/section3/prc33.htm) has reached the score asked for;
3. the difference matters: refusals have at least doubled (say), or what is answered has halved. Among a
   million responses, 1.1 % is significantly more than 1.0 %, and nobody should get up for it.

It is *calm* again when 2 or 3 does not hold even by half: with half the score, or with the square root of the
ratio. So what hovers at the border does not begin and end with every look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

REFUSED_AT_LEAST = 10
"""Refusals in a window: with fewer the normal distribution is no picture of what chance does."""


class Count(NamedTuple):
    """Responses that were over in some time, and how many of them were refused or blocked."""

    responses: int = 0
    refused: int = 0
    blocked: int = 0
    """Responses that a filter, a policy or a guardrail stopped; none is in `refused`."""

    @property
    def share(self) -> float:
        """The share of refused responses, from 0 to 1; 0 if there are no responses."""
        return self._share_of(self.refused)

    @property
    def blocked_share(self) -> float:
        """The share of blocked responses, from 0 to 1; 0 if there are no responses."""
        return self._share_of(self.blocked)

    def plus(self, other: Count) -> Count:
        """Return the sum of both."""
        return Count(*(mine + others for mine, others in zip(self, other, strict=True)))

    def without(self, part: Count) -> Count:
        """Return the rest, if `part` is a part of it; never less than nothing."""
        return Count(*(max(0, mine - others) for mine, others in zip(self, part, strict=True)))

    def _share_of(self, some: int) -> float:
        return some / self.responses if self.responses else 0.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What makes a spike."""

    responses: int
    """At least so many, in the window and in the baseline."""
    ratio: float
    """Refusals are at least so many times as frequent; or what is answered, at most one part in so many."""
    score: float
    """At least so many standard errors."""


def score(window: Count, baseline: Count) -> float:
    """How many standard errors the window's share is above the baseline's; 0 without anything to compare."""
    if not window.responses or not baseline.responses:
        return 0.0
    pooled = window.plus(baseline).share
    variance = pooled * (1 - pooled) * (1 / window.responses + 1 / baseline.responses)
    return (window.share - baseline.share) / math.sqrt(variance) if variance else 0.0


def is_spike(window: Count, baseline: Count, thresholds: Thresholds) -> bool:
    """Whether far more was refused in the window than before it."""
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
    """Whether a spike is over: hardly more is refused than before it, or nothing comes any more."""
    return score(window, baseline) < thresholds.score / 2 or not _matters(
        window.share, baseline.share, math.sqrt(thresholds.ratio)
    )


def _matters(share: float, before: float, ratio: float) -> bool:
    return share >= min(before * ratio, 1 - (1 - before) / ratio)
