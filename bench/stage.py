"""The context of a measurement: server, options, results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import live
from bench.competitors import SABOTAGED
from bench.drain import drain
from bench.entries import load
from bench.generator import Shape
from bench.results import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.competitors import Competitor
    from bench.drain import Drain
    from bench.entries import Load
    from bench.ground import Ground
    from bench.live import Live, Pace
    from bench.options import Options
    from bench.progress import Progress
    from bench.results import Results

_EVENTS_OF_A_RESPONSE = 60
"""Minimum number of events per response: with few events, fewer responses are open."""


@dataclass(slots=True)
class Stage:
    """A run of the bench, as its measurements see it."""

    options: Options
    place: Ground
    results: Results
    progress: Progress
    measurement: str = ""
    """Name of the current measurement."""
    _loads: dict[Shape, Load] = field(default_factory=dict)

    def takes_part(self, competitor: Competitor) -> bool:
        """Return whether a competitor was chosen."""
        return competitor.name in self.options.competitors

    def rounds(self, case: str) -> Iterator[int]:
        """Yield the numbers of the rounds, and show the progress."""
        for number in range(1, self.options.rounds + 1):
            self.progress.at(f"{self.measurement}, {case}, round {number} of {self.options.rounds}")
            yield number
        self._loads.clear()

    def shape(self, open_responses: int, events: int, entry_events: int = 1) -> Shape:
        """Return the usual shape of an input, with fewer open responses if there are few events."""
        return Shape(min(open_responses, max(1, events // _EVENTS_OF_A_RESPONSE)), events, entry_events)

    def load(self, shape: Shape) -> Load:
        """Return an input, which is prepared once per case."""
        if shape not in self._loads:
            self._loads[shape] = load(self.options.seed, shape, self.place.preloaded)
        return self._loads[shape]

    def add(self, case: str, who: str, what: str, value: float | None) -> None:
        """Record a figure; None if its run was void."""
        self.results.add(Figure(self.measurement, case, who, what), value)

    def check(self, competitor: Competitor, case: str, wrong: list[str]) -> None:
        """Record wrong outputs."""
        self.results.wrong += [f"{competitor.name}, {self.measurement}, {case}: {what}" for what in wrong]

    def drain(self, case: str, competitor: Competitor, input_: Load, processes: int = 1) -> Drain:
        """Measure how a competitor drains an input, and check its outputs."""
        result = drain(self.place, self._runner(competitor), input_, processes)
        self.check(competitor, case, result.wrong)
        self.progress.say(
            f"{self.measurement}, {case}: {competitor.name} {result.events_per_second:,.0f} events/s "
            f"({result.events:,} in {result.seconds:.2f} s)"
        )
        return result

    def live(self, case: str, competitor: Competitor, input_: Load, pace: Pace) -> Live:
        """Measure how a competitor keeps up with a publisher, and check its outputs."""
        result = live.run(self.place, self._runner(competitor), input_, pace)
        self.check(competitor, case, result.wrong)
        if result.void:
            self.progress.say(
                f"{self.measurement}, {case}: {competitor.name}, void: the publisher kept only "
                f"{result.pace:.1%} of its pace"
            )
        return result

    def _runner(self, competitor: Competitor) -> Competitor:
        return SABOTAGED if self.options.sabotage and competitor.rebuilds else competitor
