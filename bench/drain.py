"""A run: a competitor reads a prepared input as fast as it can.

All competitors get the same treatment. The input is written under another name while the competitor already
waits at an empty stream; a RENAME makes it visible to all its processes at once, and starts the clock. The
clock stops when the group has no unread and no pending entries, and the expected number of texts and alerts
is out. So the time includes finishing, but not starting.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from bench import verdict
from bench.processes import Workers

if TYPE_CHECKING:
    from bench.competitors import Competitor
    from bench.entries import Expected, Load
    from bench.ground import Ground

_POLL_SECONDS = 0.01
_CHECK_EVERY = 100
_GIVES_UP_AFTER = 30.0
"""Seconds without progress after which a run is given up: longer than the claim time of an entry."""


class Drain(NamedTuple):
    """The measurements of a run."""

    seconds: float
    events: int
    worker_cpu: float
    """Processor time of all its processes, in seconds."""
    server_cpu: float
    rss: int
    """Memory of all its processes at the end, in bytes."""
    wrong: list[str]

    @property
    def events_per_second(self) -> float:
        """Return the throughput."""
        return self.events / self.seconds


def drain(place: Ground, competitor: Competitor, load: Load, processes: int = 1) -> Drain:
    """Measure how a competitor drains an input."""
    place.clear()
    place.make_group(place.names.deltas)
    with Workers(competitor, place, processes) as workers:
        workers.wait_until_reading()
        place.send(load.chunks)
        place.make_group(place.preloaded)
        worker_cpu, server_cpu = workers.cpu_seconds(), place.cpu_seconds()
        began = time.perf_counter()
        place.client.rename(place.preloaded, place.names.deltas)
        wait_until_done(place, competitor, load.expected, load.entries, workers)
        seconds = time.perf_counter() - began
        worker_cpu = workers.cpu_seconds() - worker_cpu
        server_cpu = place.cpu_seconds() - server_cpu
        rss = workers.rss()
        wrong = verdict.wrong(place, load.expected) if competitor.rebuilds else []
    return Drain(seconds, load.events, worker_cpu, server_cpu, rss, wrong)


def wait_until_done(
    place: Ground, competitor: Competitor, expected: Expected, entries: int, workers: Workers
) -> None:
    """Wait until all entries are acknowledged and all outputs are there.

    If there is no progress any more, return anyway: the comparison of texts will report what is missing.
    """
    texts = len(expected.texts) if competitor.rebuilds else 0
    alerts = len(expected.refusals) * competitor.alerts if competitor.rebuilds else 0
    before, changed = place.state(), time.monotonic()
    for poll in range(1, 2**62):
        state = place.state()
        if state.read >= entries and state.drained and state.texts >= texts and state.alerts >= alerts:
            return
        if state != before:
            before, changed = state, time.monotonic()
        elif time.monotonic() > changed + _GIVES_UP_AFTER:
            return
        if poll % _CHECK_EVERY == 0:
            workers.check()
        time.sleep(_POLL_SECONDS)
