"""Case: the highest steady rate at which the texts still come in time.

It is found by bisection. At every rate a response streams 50 events a second. A worker keeps up with a rate
if the p99 of the time from a closing event to its text is at most 100 ms. A rate that fails is tried once
more, as a disturbance of the machine may last as long as a try.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.competitors import HAND_WRITTEN, OURS
from bench.live import Pace
from bench.measurements.paced import figures
from bench.measurements.paced.rates import input_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.competitors import Competitor
    from bench.stage import Stage

CASE = "highest steady rate"
RATE = "events/s"
_LOWEST, _HIGHEST, _STEP = 1000, 100_000, 1.1
_QUICK_LADDER = (200,)
_WITHIN_MS = 100
_TRIES = 2
_SECONDS, _QUICK_SECONDS = 4, 1
_WARM_UP, _END = 0.25, 0.9
"""Shares of a try before and after which nothing is measured."""
NOTE = (
    "The highest steady rate is the highest one with a p99 from closing event to text of at most "
    f"{_WITHIN_MS} ms, by bisection in steps of {100 * (_STEP - 1):.0f} % from {_LOWEST:,} to "
    f"{_HIGHEST:,} events/s, with runs of {_SECONDS} s; a rate fails if it does so twice."
)


def measure(stage: Stage) -> None:
    """Find the highest rate of each competitor, in turn."""
    rates = _QUICK_LADDER if stage.options.quick else ladder()
    for number in stage.rounds(CASE):
        for competitor in filter(stage.takes_part, (OURS, HAND_WRITTEN)):
            rate = highest(rates, partial(_keeps_up, stage, competitor, number))
            stage.add(CASE, competitor.name, RATE, rate)
            stage.progress.say(f"{figures.NAME}, {CASE}: {competitor.name} {rate:,} events/s")


def ladder() -> tuple[int, ...]:
    """Return the rates that can be the result, lowest first."""
    rates = [_LOWEST]
    while rates[-1] < _HIGHEST:
        rates.append(min(_HIGHEST, round(rates[-1] * _STEP)))
    return tuple(rates)


def highest(rates: Sequence[int], keeps_up: Callable[[int], bool]) -> int:
    """Return the highest rate that is kept up with, by bisection; 0 if it is not even the first."""
    kept, failed = -1, len(rates)
    while failed - kept > 1:
        middle = (kept + failed) // 2
        if keeps_up(rates[middle]):
            kept = middle
        else:
            failed = middle
    return rates[kept] if kept >= 0 else 0


def _keeps_up(stage: Stage, competitor: Competitor, number: int, rate: int) -> bool:
    input_ = input_at(stage, rate, stage.options.scaled(_SECONDS, _QUICK_SECONDS), number)
    pace = Pace.between(_WARM_UP, _END, input_, rate)
    for _ in range(_TRIES):
        stage.progress.at(f"{figures.NAME}, {CASE}: {competitor.name} at {rate:,} events/s")
        ran = stage.live(CASE, competitor, input_, pace)
        p99 = figures.milliseconds(ran.texts, 0.99)
        if not ran.void and p99 is not None and p99 <= _WITHIN_MS:
            return True
    return False
