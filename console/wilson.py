"""Confidence intervals of shares."""

from __future__ import annotations

import math
from typing import Final

_Z: Final = 1.959964
"""Quantile of the normal distribution for 95 %."""


def wilson(some: int, of: int) -> tuple[float, float]:
    """Return the interval, from 0 to 1, that has the true share with a confidence of 95 %.

    It is Wilson's score interval, which also holds for few and for rare cases
    (https://www.itl.nist.gov/div898/handbook/prc/section2/prc241.htm). Without any case it is 0 to 1.
    """
    if of <= 0:
        return 0.0, 1.0
    share, z2 = min(1.0, some / of), _Z * _Z  # Redis may say anything
    center = share + z2 / (2 * of)
    margin = _Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    scale = 1 + z2 / of
    return max(0.0, (center - margin) / scale), min(1.0, (center + margin) / scale)
