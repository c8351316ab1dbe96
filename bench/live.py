"""A run at a steady pace: processor time, commands and delays of a competitor in a period of it.

The publisher has a process of its own. The bench waits while it publishes, and a thread of the bench observes
the outputs. Only a period of the run is measured: at its beginning everything is done for the first time, and
at its end the last texts of all responses are closed within a moment, which does not happen under steady
load.
"""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

from bench import counters, verdict
from bench.competitors import NOBODY
from bench.drain import wait_until_done
from bench.observer import watch
from bench.processes import Workers
from bench.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.competitors import Competitor
    from bench.counters import Counters
    from bench.entries import Load
    from bench.generator import PartName
    from bench.ground import Ground
    from bench.observer import Observer, Seen

_KEPT = 0.98
"""Share of the rate that a publisher must have kept, and that a worker must have read."""
_COMMANDS_OF_A_STATE = 3


class Pace(NamedTuple):
    """The rate of a run, and the period that is measured."""

    rate: float
    """Entries per second."""
    first: float
    """Begin of the period, in seconds after the first entry."""
    last: float
    """End of the period."""

    @classmethod
    def between(cls, first: float, last: float, load: Load, rate: float) -> Self:
        """Return the period between two shares of an input."""
        return cls(rate, first * load.entries / rate, last * load.entries / rate)


class Live(NamedTuple):
    """The measurements of a run, all of them of the period."""

    seconds: float
    events: int
    pace: float
    """Share of the rate that the publisher kept."""
    read: float
    """Entries that the competitor read, as a share of those published."""
    worker_cpu: float
    """Processor time of the competitor, in seconds."""
    server_cpu: float
    commands: int
    """Number of commands of the competitor, those in scripts included."""
    texts: list[float]
    """Seconds from each closing event to its text; without texts, from each entry to its echo."""
    alerts: list[float]
    """Seconds from the first delta of each refusal to its opened alert."""
    wrong: list[str]

    @property
    def void(self) -> bool:
        """Return whether the publisher was too slow, so that the figures belong to another rate."""
        return self.pace < _KEPT

    @property
    def behind(self) -> bool:
        """Return whether the competitor fell behind, so that its costs are those of fewer entries."""
        return self.read < _KEPT


class _Snapshot(NamedTuple):
    counters: Counters
    observed: int
    """Number of the observer's commands."""
    read: int
    """Number of entries that the competitor has read."""


def run(place: Ground, competitor: Competitor, load: Load, pace: Pace) -> Live:
    """Publish an input of one event an entry, and measure a competitor that reads it."""
    place.clear()
    place.make_group(place.names.deltas)
    outputs = (place.names.assembled, place.names.alerts)
    with Workers(competitor, place, 0 if competitor is NOBODY else 1) as workers:
        workers.wait_until_reading()
        with (
            _no_collection(),
            watch(place, *outputs) as observer,
            Publisher(place, load, pace.rate) as publisher,
        ):
            began = publisher.begin()
            before = _snapshot(began + pace.first, place, workers, observer)
            after = _snapshot(began + pace.last, place, workers, observer)
            sent = publisher.sent()
            if competitor is not NOBODY:
                wait_until_done(place, competitor, load.expected, load.entries, workers)
    used = after.counters.since(before.counters)
    period = [before.counters.at <= at <= after.counters.at for at in sent]
    events = sum(period)
    observed = after.observed - before.observed
    texts, alerts = (observer.seen[name] for name in outputs)

    def delays(numbers: Mapping[PartName, int], stream: Seen) -> list[float]:
        seen = _first_seen(stream)
        return [
            seen[name] - sent[number] for name, number in numbers.items() if period[number] and name in seen
        ]

    def echoes() -> list[float]:
        # Without a competitor, there are none.
        return [out - at for at, out, measured in zip(sent, texts.at, period, strict=False) if measured]

    return Live(
        seconds=used.at,
        events=events,
        pace=events / used.at / pace.rate,
        read=(after.read - before.read) / max(1, events),
        worker_cpu=used.worker_cpu,
        server_cpu=used.server_cpu,
        commands=used.commands - events - observed - _COMMANDS_OF_A_STATE,
        texts=delays(load.closes, texts) if competitor.rebuilds else echoes(),
        alerts=delays(load.opens, alerts),
        wrong=verdict.wrong(place, load.expected) if competitor.rebuilds else [],
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disable garbage collection, which would disturb the times of the observer."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _snapshot(at: float, place: Ground, workers: Workers, observer: Observer) -> _Snapshot:
    """Wait until a time, and read all counters."""
    time.sleep(max(0.0, at - time.monotonic()))
    return _Snapshot(counters.read(place, workers), observer.commands, place.state().read)


def _first_seen(stream: Seen) -> dict[PartName, float]:
    """Return the time at which each text, or opened alert, was seen first."""
    first: dict[PartName, float] = {}
    for at, fields in zip(stream.at, stream.entries, strict=True):
        first.setdefault(verdict.name_of(verdict.message_of(fields)), at)
    return first
