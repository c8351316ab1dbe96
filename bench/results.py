"""What was measured: every figure of every round, and what is made of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Figure(NamedTuple):
    """What a number is about."""

    measurement: str
    case: str
    who: str
    what: str
    """With its unit: `events/s`, `worker CPU, s per million events`."""


class Spread(NamedTuple):
    """The rounds of a figure in three numbers."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Results:
    """All of a run."""

    rounds: dict[Figure, list[float]] = field(default_factory=dict)
    """Raw: one number a round, in the order in which they were measured."""
    wrong: list[str] = field(default_factory=list)
    """Who produced what wrong."""
    notes: dict[str, str] = field(default_factory=dict)
    """What has to be known of a measurement to read its figures."""
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """For the plot: pairs of numbers by name."""

    def add(self, figure: Figure, value: float) -> None:
        """Note a round's number."""
        self.rounds.setdefault(figure, []).append(value)

    def ratios(self, over: Figure, under: Figure) -> list[float]:
        """One figure over the other, round by round: what disturbs a round disturbs both."""
        pairs = zip(self.rounds.get(over, ()), self.rounds.get(under, ()), strict=False)
        return [above / below for above, below in pairs if below]


def shown(value: float) -> str:
    """A number with three digits that count, or all of a large one's."""
    if abs(value) >= 1000:  # noqa: PLR2004 - where thousands begin
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004 - three digits
