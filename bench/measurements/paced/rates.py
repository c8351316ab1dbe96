"""Cases: steady rates of 100 to 20,000 events/s.

A response streams 50 events a second, so the number of open responses grows with the rate. In each round, the
publisher also runs alone, at the same rate: the server's processor time beyond that is the competitor's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.competitors import BARE_ECHO, FASTSTREAM_BATCH, HAND_WRITTEN, NOBODY, OURS
from bench.entries import load
from bench.generator import Shape
from bench.live import Pace
from bench.measurements.paced import figures

if TYPE_CHECKING:
    from bench.entries import Load
    from bench.stage import Stage

RATES, QUICK_RATES = (100, 1000, 5000, 20_000), (200,)
COMPETITORS = (OURS, HAND_WRITTEN, FASTSTREAM_BATCH, BARE_ECHO)
NOTE = (
    "One worker process, and a publisher in a process of its own; one event an entry, 50 events a second of "
    "each response, texts of 100 deltas. CPU is in % of a core. That of the server includes the publisher "
    "and an observer of the outputs; that beyond the publisher does not include what the server needs for "
    "the publisher alone, measured in the same round. Commands are those of the worker, with those in "
    "scripts. Delays are from the XADD of a closing event to its text, and from that of a refusal's first "
    "delta to its opened alert. bare-echo rebuilds no texts: its delays are from each entry to the one that "
    "it writes. A run is void if its publisher kept less than 98 % of its pace, and so are its CPU and its "
    "commands if the worker read less than 98 % of what was published meanwhile."
)
_SECONDS, _QUICK_SECONDS = 15, 1
_WARM_UP, _END = 0.15, 0.9
"""Shares of a run before and after which nothing is measured."""
_DELTAS, _QUICK_DELTAS = 100, 4


def case_of(rate: int) -> str:
    """Return the name of the case in the table."""
    return f"{rate:,} events/s"


def input_at(stage: Stage, rate: float, seconds: float, number: int) -> Load:
    """Return an input of the usual shape, a different one in each round."""
    deltas = stage.options.scaled(_DELTAS, _QUICK_DELTAS)
    shape = Shape(max(1, round(rate / figures.A_SECOND)), round(rate * seconds), deltas=deltas)
    return load(f"{stage.options.seed}/{number}", shape, stage.place.names.deltas)


def measure(stage: Stage) -> None:
    """Publish at each rate, with all competitors in turn."""
    seconds = stage.options.scaled(_SECONDS, _QUICK_SECONDS)
    for rate in QUICK_RATES if stage.options.quick else RATES:
        case = case_of(rate)
        for number in stage.rounds(case):
            input_ = input_at(stage, rate, seconds, number)
            pace = Pace.between(_WARM_UP, _END, input_, rate)
            alone = stage.live(case, NOBODY, input_, pace)
            for competitor in filter(stage.takes_part, COMPETITORS):
                ran = stage.live(case, competitor, input_, pace)
                figures.note(stage, case, competitor, ran, alone)
            figures.note_alone(stage, case, NOBODY.name, alone)
