"""The goals, and further quantities of interest.

Most are ratios within one run, since absolute figures depend on the machine. Those for steady load and for an
idle worker are absolute: they say what a deployment pays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.competitors import BARE, FASTSTREAM_BATCH, FIRST_ATTEMPT, HAND_WRITTEN, OURS
from bench.measurements import growth, idle, latency, open_parts, processes, soak, start_up
from bench.measurements import throughput as t
from bench.measurements.paced import burst, figures, highest_rate, rates
from bench.quantity import Quantity
from bench.results import Figure

if TYPE_CHECKING:
    from bench.competitors import Competitor
    from bench.measurements.throughput import Case


def _speed(case: Case, competitor: Competitor) -> Figure:
    return Figure(t.NAME, case.name, competitor.name, t.EVENTS)


def _to_bare(says: str, ours: Case, bare: Case, at_least: float | None = None) -> Quantity:
    """Return the ratio of our throughput to that of the bare drain, with the server's costs."""
    server = tuple(
        Figure(t.NAME, case.name, competitor.name, t.SERVER_CPU)
        for case, competitor in ((ours, OURS), (bare, BARE))
    )
    return Quantity(
        says, _speed(ours, OURS), _speed(bare, BARE), at_least=at_least, server=(server[0], server[1])
    )


def _p99(who: str) -> Figure:
    return Figure(latency.NAME, "at 50 % load", who, "p99, ms")


def _paced(rate: int, what: str, competitor: Competitor = OURS) -> Figure:
    return Figure(figures.NAME, rates.case_of(rate), competitor.name, what)


def _idle(partitions: int, what: str) -> Figure:
    return Figure(idle.NAME, idle.case_of(partitions), OURS.name, what)


DRAINS = (
    _to_bare("ours / bare drain, 50 open", t.FIFTY, t.FIFTY, at_least=0.75),
    _to_bare("ours / bare drain, 1,000 open", t.THOUSAND, t.THOUSAND, at_least=0.5),
    Quantity("ours / first attempt", _speed(t.FIFTY, OURS), _speed(t.FIFTY, FIRST_ATTEMPT), at_least=50),
    Quantity(
        "latency p99 of a text at 50 % load / of the bare loop",
        _p99(latency.TEXT),
        _p99(latency.ECHO),
        at_most=4,
    ),
    Quantity(
        "worker RSS after 5,000,000 events / after 200,000",
        Figure(soak.NAME, soak.CASE, soak.WORKER, soak.LATE),
        Figure(soak.NAME, soak.CASE, soak.WORKER, soak.EARLY),
        at_most=1.05,
    ),
    *(
        Quantity(
            f"server memory of open texts / bytes of their text, {case.name}",
            Figure(open_parts.NAME, case.name, OURS.name, open_parts.MEMORY),
            Figure(open_parts.NAME, case.name, OURS.name, open_parts.TEXT),
            at_most=limit,
        )
        for case, limit in ((open_parts.FIFTY, 4), (open_parts.THOUSAND, 8))
    ),
    Quantity(
        "cost of a delta of a text of 100,000 / of 100",
        Figure(growth.NAME, growth.LONG, OURS.name, growth.DELTA),
        Figure(growth.NAME, growth.SHORT, OURS.name, growth.DELTA),
        at_most=1.2,
    ),
    Quantity("2 worker processes / 1", processes.speed(2), processes.speed(1), at_least=1.5),
)
"""Goals for throughput and for what it costs."""

STEADY = (
    *(
        Quantity(
            f"ours / hand-written, worker CPU at {rate:,} events/s",
            _paced(rate, figures.WORKER_CPU),
            _paced(rate, figures.WORKER_CPU, HAND_WRITTEN),
            at_most=limit,
        )
        for rate, limit in ((100, 0.75), (1000, 0.5), (5000, 0.5), (20_000, 0.75))
    ),
    Quantity("worker CPU at 1,000 events/s, % of a core", _paced(1000, figures.WORKER_CPU), at_most=15),
    *(
        Quantity(
            f"server CPU at {rate:,} events/s, % of a core", _paced(rate, figures.SERVER_CPU), at_most=limit
        )
        for rate, limit in ((1000, 8), (5000, 16))
    ),
    Quantity("commands an event at 1,000 events/s", _paced(1000, figures.COMMANDS), at_most=2.5),
    *(
        Quantity(
            f"first delta to opened alert at 1,000 events/s, {share}, ms", _paced(1000, what), at_most=limit
        )
        for share, what, limit in (("p50", figures.ALERT_P50, 3), ("p99", figures.ALERT_P99, 8))
    ),
    *(
        Quantity(f"closing to text at {rate:,} events/s, {share}, ms", _paced(rate, what), at_most=limit)
        for rate, p50, p99 in ((1000, 8, 20), (5000, 8, 20), (20_000, 10, 25))
        for share, what, limit in (("p50", figures.TEXT_P50, p50), ("p99", figures.TEXT_P99, p99))
    ),
    Quantity(
        "400 texts closed within 20 ms, closing to text, p99, ms",
        Figure(figures.NAME, burst.CASE, OURS.name, figures.TEXT_P99),
        at_most=60,
    ),
    Quantity(
        "ours / hand-written, highest steady rate",
        Figure(figures.NAME, highest_rate.CASE, OURS.name, highest_rate.RATE),
        Figure(figures.NAME, highest_rate.CASE, HAND_WRITTEN.name, highest_rate.RATE),
        at_least=2,
    ),
    Quantity("idle, 64 partitions, worker CPU, % of a core", _idle(64, idle.WORKER_CPU), at_most=1),
    Quantity("idle, 64 partitions, commands/s", _idle(64, idle.COMMANDS), at_most=70),
    Quantity("idle, 64 partitions, connections", _idle(64, idle.CONNECTIONS), at_most=16),
    Quantity("idle, 1 partition, worker RSS, MB", _idle(1, idle.RSS), at_most=60),
    Quantity(
        "seconds from a worker's start to its first read",
        Figure(start_up.NAME, start_up.CASE, OURS.name, start_up.FIRST_READ),
        at_most=0.8,
    ),
)
"""Goals for steady load and for an idle worker."""

GOALS = (*DRAINS, *STEADY)

BESIDES = (
    Quantity("ours / hand-written, 50 open", _speed(t.FIFTY, OURS), _speed(t.FIFTY, HAND_WRITTEN)),
    Quantity("ours / hand-written, 1,000 open", _speed(t.THOUSAND, OURS), _speed(t.THOUSAND, HAND_WRITTEN)),
    Quantity("ours / FastStream batch, 50 open", _speed(t.FIFTY, OURS), _speed(t.FIFTY, FASTSTREAM_BATCH)),
    _to_bare("ours with entries of 16 / bare drain with entries of 1, in events/s", t.SIXTEEN, t.BARE_SINGLE),
    Quantity(
        "latency p99 of an alert at 50 % load / of the bare loop",
        _p99(latency.ALERT),
        _p99(latency.ECHO),
    ),
    Quantity("4 worker processes / 1", processes.speed(4), processes.speed(1)),
    *(
        Quantity(
            f"server memory of open texts / bytes of their text, {case.name}",
            Figure(open_parts.NAME, case.name, OURS.name, open_parts.MEMORY),
            Figure(open_parts.NAME, case.name, OURS.name, open_parts.TEXT),
        )
        for case in open_parts.CASES[2:]
    ),
)
"""Quantities of interest without a goal."""
