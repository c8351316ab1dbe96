"""What a measurement is given: the server, the wishes, a place for its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
    from bench.options import Options
    from bench.progress import Progress
    from bench.results import Results

_EVENTS_OF_A_RESPONSE = 60
"""At the least, so that few events are not spread over so many responses that nothing is left of each."""


@dataclass(slots=True)
class Stage:
    """A run of the bench, as its measurements see it."""

    options: Options
    place: Ground
    results: Results
    progress: Progress
    measurement: str = ""
    """Which is being made."""
    _loads: dict[Shape, Load] = field(default_factory=dict)

    def takes_part(self, competitor: Competitor) -> bool:
        """Whether it was asked for."""
        return competitor.name in self.options.competitors

    def rounds(self, case: str) -> Iterator[int]:
        """Count the rounds, and say so."""
        for number in range(1, self.options.rounds + 1):
            self.progress.at(f"{self.measurement}, {case}, round {number} of {self.options.rounds}")
            yield number
        self._loads.clear()

    def shape(self, open_responses: int, events: int, entry_events: int = 1) -> Shape:
        """An input of the usual shape; of few events, it has fewer responses open."""
        return Shape(min(open_responses, max(1, events // _EVENTS_OF_A_RESPONSE)), events, entry_events)

    def load(self, shape: Shape) -> Load:
        """An input, made once a case."""
        if shape not in self._loads:
            self._loads[shape] = load(self.options.seed, shape, self.place.preloaded)
        return self._loads[shape]

    def add(self, case: str, who: str, what: str, value: float) -> None:
        """Note a figure."""
        self.results.add(Figure(self.measurement, case, who, what), value)

    def check(self, competitor: Competitor, case: str, wrong: list[str]) -> None:
        """Note what came out wrong."""
        self.results.wrong += [f"{competitor.name}, {self.measurement}, {case}: {what}" for what in wrong]

    def drain(self, case: str, competitor: Competitor, input_: Load, processes: int = 1) -> Drain:
        """Have a competitor drain an input, and check what it made of it."""
        runner = SABOTAGED if self.options.sabotage and competitor.rebuilds else competitor
        result = drain(self.place, runner, input_, processes)
        self.check(competitor, case, result.wrong)
        self.progress.say(
            f"{self.measurement}, {case}: {competitor.name} {result.events_per_second:,.0f} events/s "
            f"({result.events:,} in {result.seconds:.2f} s)"
        )
        return result
