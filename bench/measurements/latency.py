"""Measurement: time from a closing event to its text, and from a refusal's first delta to its alert.

Rates are 10 % and 50 % of the maximum that one process can drain, as measured just before. A bare loop, which
reads an entry and XADDs one, is measured at the same rates. If the maximum of that loop is lower than ours,
it counts as 100 %, and ours is also measured at half of its own maximum. All times are from one clock, that
of the program which publishes and observes.
"""

from __future__ import annotations

import gc
import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

from bench import verdict
from bench.competitors import BARE_ECHO, OURS
from bench.drain import wait_until_done
from bench.entries import Expected, Xadd, entries
from bench.ground import wait
from bench.live import publish, watch
from bench.measurements import throughput
from bench.processes import Workers
from bench.results import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.competitors import Competitor
    from bench.entries import Entry
    from bench.generator import PartName
    from bench.live import Seen
    from bench.stage import Stage

NAME = "latency"
SHARES = {"at 10 % load": 0.1, "at 50 % load": 0.5}
OWN_HALF = "at 50 % of its own maximum"
TEXT, ALERT, ECHO = f"{OURS.name}, text", f"{OURS.name}, opened alert", BARE_ECHO.name
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_SECONDS, _QUICK_SECONDS = 5, 1
_WARM_UP, _END = 0.2, 0.9
"""Shares of a run before and after which nothing is measured.

At its end the last texts of all responses are closed within a moment, which does not happen under steady
load.
"""
_OPEN = 50
_OUT_WITHIN = 60.0


class Span(NamedTuple):
    """A period of a run, by the clock."""

    first: float
    last: float

    def has(self, at: float) -> bool:
        """Return whether a time is in the period."""
        return self.first <= at <= self.last


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
            for competitor in filter(stage.takes_part, competitors):
                _run(stage, case, competitor, rate, number)


def _maximum(stage: Stage) -> float:
    case = throughput.FIFTY.name
    measured = stage.results.rounds.get(Figure(throughput.NAME, case, OURS.name, throughput.EVENTS))
    return statistics.median(measured) if measured else _calibrated(stage, OURS)


def _echo_maximum(stage: Stage) -> float:
    return _calibrated(stage, BARE_ECHO) if stage.takes_part(BARE_ECHO) else math.inf


def _calibrated(stage: Stage, competitor: Competitor) -> float:
    load = stage.load(stage.shape(_OPEN, stage.options.events // 4))
    return stage.drain("calibration", competitor, load).events_per_second


def _run(stage: Stage, case: str, competitor: Competitor, rate: float, number: int) -> None:
    place = stage.place
    seconds = stage.options.scaled(_SECONDS, _QUICK_SECONDS)
    expected = Expected()
    shape = stage.shape(_OPEN, round(rate * seconds))
    published = list(entries(f"{stage.options.seed}/{number}", shape, expected))
    add = Xadd(place.names.deltas)
    commands = [add(entry) for entry in published]
    place.clear()
    place.make_group(place.names.deltas)
    with Workers(competitor, place) as workers:
        workers.wait_until_reading()
        with watch(place, place.names.assembled, place.names.alerts) as seen:
            gc.disable()  # garbage collection would disturb the times
            try:
                sent = publish(place, commands, rate)
            finally:
                gc.enable()
            wait(lambda: place.state().read >= len(sent), _OUT_WITHIN, f"{competitor.name} reads all")
            wait_until_done(place, competitor, expected, len(sent), workers)
        texts, alerts = seen[place.names.assembled], seen[place.names.alerts]
    looked_at = Span(sent[round(len(sent) * _WARM_UP)], sent[round(len(sent) * _END)])
    if not competitor.rebuilds:
        _note(stage, case, ECHO, _later(sent, texts.at, looked_at))
        return
    stage.check(competitor, case, verdict.wrong(place, expected))
    closed = _sent(published, sent, (entry.closes for entry in published))
    opened = _sent(published, sent, (entry.opens for entry in published))
    _note(stage, case, TEXT, _delays(closed, _seen(texts), looked_at))
    _note(stage, case, ALERT, _delays(opened, _seen(alerts), looked_at))


def _later(sent: Sequence[float], seen: Sequence[float], looked_at: Span) -> list[float]:
    return [out - at for at, out in zip(sent, seen, strict=True) if looked_at.has(at)]


def _sent(
    published: Sequence[Entry], sent: Sequence[float], names: Iterable[tuple[PartName, ...]]
) -> dict[PartName, float]:
    return {name: at for _, at, some in zip(published, sent, names, strict=True) for name in some}


def _seen(stream: Seen) -> dict[PartName, float]:
    """Return the time at which each text, or opened alert, was seen first."""
    first: dict[PartName, float] = {}
    for at, fields in zip(stream.at, stream.entries, strict=True):
        first.setdefault(verdict.name_of(verdict.message_of(fields)), at)
    return first


def _delays(sent: dict[PartName, float], seen: dict[PartName, float], looked_at: Span) -> list[float]:
    return [seen[name] - at for name, at in sent.items() if looked_at.has(at) and name in seen]


def _note(stage: Stage, case: str, who: str, delays: list[float]) -> None:
    if not delays:
        return
    percentiles = []
    for name, share in PERCENTILES.items():
        milliseconds = 1000 * percentile(delays, share)
        percentiles.append(f"{name} {milliseconds:.2f}")
        stage.add(case, who, f"{name}, ms", milliseconds)
    stage.add(case, who, "samples", len(delays))
    stage.progress.say(f"{NAME}, {case}: {who}, {', '.join(percentiles)} ms")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at most `1 - share` of all values exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
