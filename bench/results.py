"""The figures of all rounds, and their statistics."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Figure(NamedTuple):
    """The subject of a number."""

    measurement: str
    case: str
    who: str
    what: str
    """Name with unit: `events/s`, `worker CPU, s per million events`."""


class Spread(NamedTuple):
    """Statistics of a figure over its rounds."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, minimum and maximum."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Results:
    """The results of a run."""

    rounds: dict[Figure, list[float | None]] = field(default_factory=dict)
    """Values of each figure, one per round in the order of measurement; None if its run was void."""
    wrong: list[str] = field(default_factory=list)
    """Descriptions of wrong outputs, with the competitor."""
    notes: dict[str, str] = field(default_factory=dict)
    """Notes that are needed to read the figures of a measurement."""
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Pairs of numbers for the plot, by name."""

    def add(self, figure: Figure, value: float | None) -> None:
        """Record a figure's value in a round."""
        self.rounds.setdefault(figure, []).append(value)

    def values(self, figure: Figure) -> list[float]:
        """Return the values of a figure without those that are void; an empty list if there are none."""
        return [value for value in self.rounds.get(figure, ()) if value is not None]

    def ratios(self, over: Figure, under: Figure) -> list[float]:
        """Return the ratios of two figures by round, since a disturbance in a round affects both."""
        pairs = zip(self.rounds.get(over, ()), self.rounds.get(under, ()), strict=False)
        return [above / below for above, below in pairs if above is not None and below]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at most `1 - share` of all values exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def shown(value: float) -> str:
    """Return a number with three significant digits, or with all digits if it is large."""
    if abs(value) >= 1000:  # noqa: PLR2004 - four digits and more
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004 - fewer than three digits
