"""Measurement: time from a closing event to its text, and from a refusal's first delta to its alert.

Rates are 10 % and 50 % of the maximum that one process can drain, as measured just before. A bare loop, which
reads an entry and XADDs one, is measured at the same rates. If the maximum of that loop is lower than ours,
it counts as 100 %, and ours is also measured at half of its own maximum. All times are from one clock.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from bench.competitors import BARE_ECHO, OURS
from bench.entries import load
from bench.live import Pace
from bench.measurements import throughput
from bench.results import Figure, percentile

if TYPE_CHECKING:
    from bench.competitors import Competitor
    from bench.entries import Load
    from bench.stage import Stage

NAME = "latency"
SHARES = {"at 10 % load": 0.1, "at 50 % load": 0.5}
OWN_HALF = "at 50 % of its own maximum"
TEXT, ALERT, ECHO = f"{OURS.name}, text", f"{OURS.name}, opened alert", BARE_ECHO.name
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_SECONDS, _QUICK_SECONDS = 5, 1
_WARM_UP, _END = 0.2, 0.9
"""Shares of a run before and after which nothing is measured."""
_OPEN = 50


def measure(stage: Stage) -> None:
    """Publish at steady rates, and measure the delays of the outputs."""
    ours, echo = _maximum(stage), _echo_maximum(stage)
    most = min(ours, echo)
    both: tuple[Competitor, ...] = (BARE_ECHO, OURS)
    cases = [(case, both, most * share) for case, share in SHARES.items()]
    note = f"100 % are {most:,.0f} events/s, with {_OPEN} responses open: "
    if ours <= echo:
        note += f"what one process drains; the bare loop can do {echo:,.0f}."
    else:
        note += (
            f"what the bare loop can do, for beyond that its latency says nothing. Ours can do {ours:,.0f}."
        )
        cases.append((OWN_HALF, (OURS,), ours / 2))
    stage.results.notes[NAME] = note
    for case, competitors, rate in cases:
        for number in stage.rounds(case):
            shape = stage.shape(_OPEN, round(rate * stage.options.scaled(_SECONDS, _QUICK_SECONDS)))
            input_ = load(f"{stage.options.seed}/{number}", shape, stage.place.names.deltas)
            for competitor in filter(stage.takes_part, competitors):
                _run(stage, case, competitor, input_, rate)


def _maximum(stage: Stage) -> float:
    case = throughput.FIFTY.name
    measured = stage.results.values(Figure(throughput.NAME, case, OURS.name, throughput.EVENTS))
    return statistics.median(measured) if measured else _calibrated(stage, OURS)


def _echo_maximum(stage: Stage) -> float:
    return _calibrated(stage, BARE_ECHO) if stage.takes_part(BARE_ECHO) else math.inf


def _calibrated(stage: Stage, competitor: Competitor) -> float:
    input_ = stage.load(stage.shape(_OPEN, stage.options.events // 4))
    return stage.drain("calibration", competitor, input_).events_per_second


def _run(stage: Stage, case: str, competitor: Competitor, input_: Load, rate: float) -> None:
    ran = stage.live(case, competitor, input_, Pace.between(_WARM_UP, _END, input_, rate))
    if competitor.rebuilds:
        _note(stage, case, TEXT, [] if ran.void else ran.texts)
        _note(stage, case, ALERT, [] if ran.void else ran.alerts)
    else:
        _note(stage, case, ECHO, [] if ran.void else ran.texts)


def _note(stage: Stage, case: str, who: str, delays: list[float]) -> None:
    """Record percentiles of the delays, which are void if there are none."""
    percentiles = []
    for name, share in PERCENTILES.items():
        milliseconds = 1000 * percentile(delays, share) if delays else None
        percentiles.append(f"{name} {'void' if milliseconds is None else f'{milliseconds:.2f}'}")
        stage.add(case, who, f"{name}, ms", milliseconds)
    stage.add(case, who, "samples", len(delays))
    stage.progress.say(f"{NAME}, {case}: {who}, {', '.join(percentiles)} ms")
