"""Measurement: server memory of texts that have begun and not ended, per byte of text.

A worker reads deltas of 4 characters and no ends. When all entries are acknowledged, the input is trimmed to
zero entries. The increase of the keys' memory is then the cost of open texts: text, bookkeeping, numbers of
the deltas, and rounding by the allocator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.competitors import OURS
from bench.drain import wait_until_done
from bench.entries import load
from bench.generator import FOUR_CHARACTERS, Shape
from bench.processes import Workers

if TYPE_CHECKING:
    from bench.entries import Load
    from bench.ground import Ground
    from bench.stage import Stage

NAME = "open-parts"
MEMORY = "server bytes"
TEXT = "bytes of text"
_AROUND = 8
"""Number of events of a response with one text that are not deltas."""


class Case(NamedTuple):
    """The numbers of open responses, and of deltas in each."""

    open_responses: int
    deltas: int

    @property
    def name(self) -> str:
        """Return the name of the case in the table."""
        return f"{self.open_responses:,} open, {self.deltas:,} deltas each"


FIFTY, THOUSAND = Case(50, 100), Case(1000, 100)
CASES = (FIFTY, THOUSAND, Case(50, 1000), Case(1000, 1000))
_QUICK_CASES = (FIFTY,)


def measure(stage: Stage) -> None:
    """Measure each case once, since memory does not depend on other programs."""
    if stage.takes_part(OURS):
        for case in _QUICK_CASES if stage.options.quick else CASES:
            stage.progress.at(f"{NAME}, {case.name}")
            _run(stage, case)


def _drain(place: Ground, input_: Load) -> None:
    """Have a worker read the input and end, so that buffers of its connections are not measured."""
    with Workers(OURS, place) as workers:
        wait_until_done(place, OURS, input_.expected, input_.entries, workers)
    place.client.xtrim(place.names.deltas, 0, approximate=False)


def _run(stage: Stage, case: Case) -> None:
    place = stage.place
    place.clear()
    place.make_group(place.names.deltas)
    warm_up = load("warm-up", Shape(5, 2000), place.names.deltas)
    place.send(warm_up.chunks)
    events = case.open_responses * (case.deltas + _AROUND)
    shape = Shape(case.open_responses, events, deltas=case.deltas, refusals=False, closed=False, uniform=True)
    filled = load(stage.options.seed, shape, place.preloaded)
    _drain(place, warm_up)
    before = place.memory_of_keys()
    place.send(filled.chunks)
    place.make_group(place.preloaded)
    place.client.rename(place.preloaded, place.names.deltas)
    _drain(place, filled)
    memory = place.memory_of_keys() - before
    text = case.open_responses * case.deltas * len(FOUR_CHARACTERS)
    stage.add(case.name, OURS.name, MEMORY, memory)
    stage.add(case.name, OURS.name, TEXT, text)
    stage.progress.say(
        f"{NAME}, {case.name}: {memory:,} bytes for {text:,} of text, {memory / text:.2f} to 1"
    )
