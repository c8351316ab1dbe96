"""Goals: ratios of figures within one run, since absolute figures depend on the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.competitors import BARE, FASTSTREAM_BATCH, FIRST_ATTEMPT, HAND_WRITTEN, OURS
from bench.measurements import growth, latency, open_parts, processes, soak
from bench.measurements import throughput as t
from bench.results import Figure

if TYPE_CHECKING:
    from bench.competitors import Competitor
    from bench.measurements.throughput import Case


class Ratio(NamedTuple):
    """A ratio of two figures, with a goal for it."""

    says: str
    over: Figure
    under: Figure
    at_least: float | None = None
    at_most: float | None = None

    @property
    def goal(self) -> str:
        """Return the goal as text; empty if there is none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    def reached(self, value: float) -> bool:
        """Return whether a ratio meets the goal."""
        enough = self.at_least is None or value >= self.at_least
        return enough and (self.at_most is None or value <= self.at_most)


def _speed(case: Case, competitor: Competitor) -> Figure:
    return Figure(t.NAME, case.name, competitor.name, t.EVENTS)


def _p99(who: str) -> Figure:
    return Figure(latency.NAME, "at 50 % load", who, "p99, ms")


GOALS = (
    Ratio("ours / bare drain, 50 open", _speed(t.FIFTY, OURS), _speed(t.FIFTY, BARE), at_least=0.75),
    Ratio("ours / bare drain, 1,000 open", _speed(t.THOUSAND, OURS), _speed(t.THOUSAND, BARE), at_least=0.5),
    Ratio(
        "ours with entries of 16 / bare drain with entries of 1, in events/s",
        _speed(t.SIXTEEN, OURS),
        _speed(t.BARE_SINGLE, BARE),
        at_least=4,
    ),
    Ratio("ours / first attempt", _speed(t.FIFTY, OURS), _speed(t.FIFTY, FIRST_ATTEMPT), at_least=50),
    Ratio(
        "latency p99 of a text at 50 % load / of the bare loop",
        _p99(latency.TEXT),
        _p99(latency.ECHO),
        at_most=4,
    ),
    Ratio(
        "worker RSS after 5,000,000 events / after 200,000",
        Figure(soak.NAME, soak.CASE, soak.WORKER, soak.LATE),
        Figure(soak.NAME, soak.CASE, soak.WORKER, soak.EARLY),
        at_most=1.05,
    ),
    *(
        Ratio(
            f"server memory of open texts / bytes of their text, {case.name}",
            Figure(open_parts.NAME, case.name, OURS.name, open_parts.MEMORY),
            Figure(open_parts.NAME, case.name, OURS.name, open_parts.TEXT),
            at_most=limit,
        )
        for case, limit in ((open_parts.FIFTY, 4), (open_parts.THOUSAND, 8))
    ),
    Ratio(
        "cost of a delta of a text of 100,000 / of 100",
        Figure(growth.NAME, growth.LONG, OURS.name, growth.DELTA),
        Figure(growth.NAME, growth.SHORT, OURS.name, growth.DELTA),
        at_most=1.2,
    ),
    Ratio("2 worker processes / 1", processes.speed(2), processes.speed(1), at_least=1.5),
)

BESIDES = (
    Ratio("ours / hand-written, 50 open", _speed(t.FIFTY, OURS), _speed(t.FIFTY, HAND_WRITTEN)),
    Ratio("ours / hand-written, 1,000 open", _speed(t.THOUSAND, OURS), _speed(t.THOUSAND, HAND_WRITTEN)),
    Ratio("ours / FastStream batch, 50 open", _speed(t.FIFTY, OURS), _speed(t.FIFTY, FASTSTREAM_BATCH)),
    Ratio(
        "latency p99 of an alert at 50 % load / of the bare loop",
        _p99(latency.ALERT),
        _p99(latency.ECHO),
    ),
    Ratio("4 worker processes / 1", processes.speed(4), processes.speed(1)),
    *(
        Ratio(
            f"server memory of open texts / bytes of their text, {case.name}",
            Figure(open_parts.NAME, case.name, OURS.name, open_parts.MEMORY),
            Figure(open_parts.NAME, case.name, OURS.name, open_parts.TEXT),
        )
        for case in open_parts.CASES[2:]
    ),
)
"""Ratios of interest without a goal."""
