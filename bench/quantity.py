"""A quantity of interest: a figure or a ratio of two, with its goal."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bench.results import Figure, Results


class Floor(NamedTuple):
    """The limit that the server sets to a ratio of throughputs: a client without any cost would reach it."""

    ours: float
    """Processor time of the server in µs an event, with our worker."""
    bare: float
    """The same with the bare drain."""
    ratio: float
    """Ratio that our worker would reach if only the server took time."""


class Quantity(NamedTuple):
    """A figure, or the ratio of two, with a goal for it."""

    says: str
    figure: Figure
    relative_to: Figure | None = None
    """Figure to divide by, within a round; None for the figure itself."""
    at_least: float | None = None
    at_most: float | None = None
    server: tuple[Figure, Figure] | None = None
    """Processor time of the server in µs an event, for both throughputs; None if it is another ratio."""

    @property
    def goal(self) -> str:
        """Return the goal as text; empty if there is none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    def reached(self, value: float) -> bool:
        """Return whether a value meets the goal."""
        enough = self.at_least is None or value >= self.at_least
        return enough and (self.at_most is None or value <= self.at_most)

    def values(self, results: Results) -> list[float]:
        """Return the values of all rounds that are not void; an empty list if there are none."""
        if self.relative_to is None:
            return results.values(self.figure)
        return results.ratios(self.figure, self.relative_to)

    def measured(self, results: Results) -> bool:
        """Return whether it was measured, even if all rounds are void."""
        return self.figure in results.rounds and self.relative_to in {None, *results.rounds}

    def floor(self, results: Results) -> Floor | None:
        """Return the limit that the server sets; None if it is not a ratio of throughputs."""
        if self.server is None or self.relative_to is None:
            return None
        ours, bare = (statistics.median(results.values(figure)) for figure in self.server)
        return Floor(ours, bare, 1e6 / ours / statistics.median(results.values(self.relative_to)))
