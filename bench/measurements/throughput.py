"""Measurement: events per second of one worker process, and the processor time that they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.competitors import BARE, FASTSTREAM_BATCH, FIRST_ATTEMPT, HAND_WRITTEN, OURS

if TYPE_CHECKING:
    from bench.competitors import Competitor
    from bench.drain import Drain
    from bench.stage import Stage

NAME = "throughput"


class Case(NamedTuple):
    """An input, and the competitors that drain it."""

    name: str
    open_responses: int
    entry_events: int
    competitors: tuple[Competitor, ...]


FIFTY = Case("50 open", 50, 1, (BARE, OURS, HAND_WRITTEN, FASTSTREAM_BATCH, FIRST_ATTEMPT))
THOUSAND = Case("1,000 open", 1000, 1, (BARE, OURS, HAND_WRITTEN, FASTSTREAM_BATCH))
SIXTEEN = Case("100 open, entries of 16", 100, 16, (BARE, OURS))
BARE_SINGLE = Case("100 open, entries of 1", 100, 1, (BARE,))
CASES = (FIFTY, THOUSAND)
EVENTS = "events/s"
WORKER_CPU = "worker CPU, s per million events"
SERVER_CPU = "server CPU, s per million events"
WORKER_BUSY = "worker CPU, cores"
SERVER_BUSY = "server CPU, cores"
RSS = "worker RSS at the end, MB"


def measure(stage: Stage) -> None:
    """Drain prepared inputs."""
    for case in CASES:
        for _ in stage.rounds(case.name):
            _turns(stage, case)
    for _ in stage.rounds(SIXTEEN.name):
        _turns(stage, BARE_SINGLE)
        _turns(stage, SIXTEEN)


def _turns(stage: Stage, case: Case) -> None:
    for competitor in filter(stage.takes_part, case.competitors):
        events = round(stage.options.events * competitor.share)
        load = stage.load(stage.shape(case.open_responses, events, case.entry_events))
        note(stage, case.name, competitor.name, stage.drain(case.name, competitor, load))


def note(stage: Stage, case: str, who: str, drained: Drain) -> None:
    """Record the figures of a run."""
    stage.add(case, who, EVENTS, drained.events_per_second)
    stage.add(case, who, WORKER_CPU, drained.worker_cpu / drained.events * 1e6)
    stage.add(case, who, SERVER_CPU, drained.server_cpu / drained.events * 1e6)
    stage.add(case, who, WORKER_BUSY, drained.worker_cpu / drained.seconds)
    stage.add(case, who, SERVER_BUSY, drained.server_cpu / drained.seconds)
    stage.add(case, who, RSS, drained.rss / 1e6)
