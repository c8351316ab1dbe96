"""Measurement: time from the start of a process to its first acknowledged entry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.competitors import BARE, FIRST_ATTEMPT, OURS
from bench.ground import wait
from bench.processes import Workers

if TYPE_CHECKING:
    from bench.competitors import Competitor
    from bench.stage import Stage

NAME = "start-up"
SECONDS = "s to the first acknowledged entry"
_EVENTS = 1000
_WITHIN = 60.0


def measure(stage: Stage) -> None:
    """Start competitors on an existing input."""
    case = "cold"
    for _ in stage.rounds(case):
        for competitor in filter(stage.takes_part, (BARE, FIRST_ATTEMPT, OURS)):
            stage.add(case, competitor.name, SECONDS, _seconds(stage, competitor))


def _seconds(stage: Stage, competitor: Competitor) -> float:
    place = stage.place
    place.clear()
    place.send(stage.load(stage.shape(10, _EVENTS)).chunks)
    place.client.rename(place.preloaded, place.names.deltas)
    place.make_group(place.names.deltas)
    began = time.perf_counter()
    with Workers(competitor, place) as workers:

        def acknowledged() -> bool:
            workers.check()
            state = place.state()
            return state.read > state.pending

        wait(acknowledged, _WITHIN, f"{competitor.name} acknowledges an entry", every=0.002)
        return time.perf_counter() - began
