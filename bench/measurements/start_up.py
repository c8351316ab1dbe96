"""Measurement: time from the start of a process to its first read, and to its first acknowledged entry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.competitors import BARE, FIRST_ATTEMPT, OURS
from bench.ground import wait
from bench.processes import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.competitors import Competitor
    from bench.ground import State
    from bench.stage import Stage

NAME = "start-up"
CASE = "cold"
FIRST_READ = "s to the first read"
SECONDS = "s to the first acknowledged entry"
_EVENTS = 1000
_WITHIN = 60.0


def measure(stage: Stage) -> None:
    """Start competitors on an existing input."""
    for _ in stage.rounds(CASE):
        for competitor in filter(stage.takes_part, (BARE, FIRST_ATTEMPT, OURS)):
            _run(stage, competitor)


def _run(stage: Stage, competitor: Competitor) -> None:
    place = stage.place
    place.clear()
    place.send(stage.load(stage.shape(10, _EVENTS)).chunks)
    place.client.rename(place.preloaded, place.names.deltas)
    place.make_group(place.names.deltas)
    began = time.perf_counter()
    with Workers(competitor, place) as workers:

        def passed(what: str, condition: Callable[[State], bool]) -> None:
            def check() -> bool:
                workers.check()
                return condition(place.state())

            wait(check, _WITHIN, f"{competitor.name}: {what}", every=0.002)
            stage.add(CASE, competitor.name, what, time.perf_counter() - began)

        passed(FIRST_READ, lambda state: state.read > 0)
        passed(SECONDS, lambda state: state.read > state.pending)
