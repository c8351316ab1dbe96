"""Measurement: several worker processes that drain one stream, and the resource that limits them."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING

from bench.competitors import OURS
from bench.measurements import throughput
from bench.results import Figure

if TYPE_CHECKING:
    from bench.stage import Stage

NAME = "processes"
NUMBERS = (1, 2, 4)
_OPEN = 50
_USED_UP = 0.85


def case_of(number: int) -> str:
    """Return the name of the case in the table."""
    return "1 process" if number == 1 else f"{number} processes"


def speed(number: int) -> Figure:
    """Return the figure for the throughput of this number of processes."""
    return Figure(NAME, case_of(number), OURS.name, throughput.EVENTS)


def measure(stage: Stage) -> None:
    """Drain the same input with 1, 2 and 4 processes."""
    if not stage.takes_part(OURS):
        return
    for _ in stage.rounds("1, 2 and 4"):
        for number in NUMBERS:
            load = stage.load(stage.shape(_OPEN, stage.options.events))
            drained = stage.drain(case_of(number), OURS, load, number)
            throughput.note(stage, case_of(number), OURS.name, drained)
    stage.results.notes[NAME] = " ".join(_limit(stage, number) for number in NUMBERS)


def _limit(stage: Stage, number: int) -> str:
    """Return a sentence about the resource that was the limit."""
    cores = os.cpu_count() or 1
    workers, server = (
        statistics.median(stage.results.values(Figure(NAME, case_of(number), OURS.name, what)))
        for what in (throughput.WORKER_BUSY, throughput.SERVER_BUSY)
    )
    if server >= _USED_UP:
        limit = "the server, which has one thread for commands"
    elif workers + server >= _USED_UP * cores:
        limit = "the machine: all its cores were busy"
    elif workers >= _USED_UP * number:
        limit = "the workers"
    else:
        limit = "none of it alone: they waited for each other"
    return (
        f"{case_of(number).capitalize()}: {workers:.2f} cores for workers and {server:.2f} for the server, "
        f"of {cores}; what limited it was {limit}."
    )
