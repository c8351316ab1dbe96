"""One run: a competitor reads what was published before, as fast as it can.

All get the same treatment. The input is filled under another name while the competitor already waits at an
empty one; a RENAME puts it in place, for all its processes at once. That is when the clock starts. It stops
when the group has nothing unread and nothing pending, and as many texts and alerts are out as must be.
Starting is not in it, and finishing is.
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
"""Seconds without any progress: longer than an entry waits to be taken over."""


class Drain(NamedTuple):
    """How it went."""

    seconds: float
    events: int
    worker_cpu: float
    """Seconds of processor time, of all its processes."""
    server_cpu: float
    rss: int
    """Bytes of memory of all its processes at the end."""
    wrong: list[str]

    @property
    def events_per_second(self) -> float:
        """Throughput."""
        return self.events / self.seconds


def drain(place: Ground, competitor: Competitor, load: Load, processes: int = 1) -> Drain:
    """Have a competitor drain an input."""
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
    """Wait until all is acknowledged and out; or until nothing happens any more: the texts will show it."""
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
