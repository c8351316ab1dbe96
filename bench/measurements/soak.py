"""Measurement: memory of one worker process and of the server while they process millions of events.

Events are made and published continuously, never more than a few batches ahead of the worker, in entries of
16, so that millions take about a minute. The worker trims the input itself. Outputs, items and markers of
finished texts stay on the server for their retention, which is the growth that is seen.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bench import verdict
from bench.competitors import OURS
from bench.drain import wait_until_done
from bench.entries import Expected, Xadd, entries
from bench.processes import Workers

if TYPE_CHECKING:
    from bench.generator import Shape
    from bench.stage import Stage

NAME = "soak"
CASE = "100 open, entries of 16"
WORKER, SERVER = "worker, RSS", "server"
EARLY, LATE = "early, MB", "at the end, MB"
RATE = "events/s, made and published meanwhile"
_STREAMS = ("deltas", "assembled", "alerts")
_EVENTS, _QUICK_EVENTS = 5_000_000, 20_000
_EARLY_EVENTS, _QUICK_EARLY_EVENTS = 200_000, 5_000
_OPEN, _ENTRY_EVENTS = 100, 16
_CHUNK_ENTRIES = 250
_AHEAD_ENTRIES = 1500
_SAMPLE_SECONDS = 0.25
_MB = 1_000_000


def measure(stage: Stage) -> None:
    """Send all events through one worker, once."""
    if not stage.takes_part(OURS):
        return
    events = stage.options.scaled(_EVENTS, _QUICK_EVENTS)
    early = stage.options.scaled(_EARLY_EVENTS, _QUICK_EARLY_EVENTS)
    stage.results.notes[NAME] = f"Early is after {early:,} events, the end after {events:,}. One round."
    stage.progress.at(f"{NAME}, {events:,} events")
    place = stage.place
    place.clear()
    place.make_group(place.names.deltas)
    with Workers(OURS, place) as workers:
        workers.wait_until_reading()
        soak = _Soak(stage, workers, early)
        soak.run(stage.shape(_OPEN, events, _ENTRY_EVENTS))
        soak.note(EARLY, soak.early)
        soak.note(LATE, soak.memory(place.settled_memory()))
    stage.check(OURS, CASE, verdict.wrong(place, soak.expected))


class _Soak:
    """The published events, and the memory meanwhile."""

    def __init__(self, stage: Stage, workers: Workers, early: int) -> None:
        self._stage = stage
        self._place = stage.place
        self._workers = workers
        self._early_events = early
        self._sampled = 0.0
        self._sent_entries = self._sent_events = 0
        self.expected = Expected()
        self.early: dict[str, float] = {}

    def run(self, shape: Shape) -> None:
        """Make and publish all events, and wait until they are processed."""
        began = time.perf_counter()
        add = Xadd(self._place.names.deltas)
        commands: list[bytes] = []
        events = 0
        for entry in entries(self._stage.options.seed, shape, self.expected):
            commands.append(add(entry))
            events += entry.events
            if len(commands) == _CHUNK_ENTRIES:
                self._send(commands, events)
                commands, events = [], 0
        self._send(commands, events)
        wait_until_done(self._place, OURS, self.expected, self._sent_entries, self._workers)
        self._sample(0)
        rate = self._sent_events / (time.perf_counter() - began)
        self._stage.add(CASE, WORKER, RATE, rate)

    def note(self, when: str, memory: dict[str, float]) -> None:
        """Record memory as figures."""
        for who, size in memory.items():
            self._stage.add(CASE, who, when, size)

    def memory(self, server: int) -> dict[str, float]:
        """Return the memory of worker, server and streams, in MB."""
        sizes = {WORKER: self._workers.rss() / _MB, SERVER: server / _MB}
        for name in _STREAMS:
            size: Any = self._place.client.memory_usage(self._place.names.name(name))
            sizes[f"server, of which the stream {name}"] = (size or 0) / _MB
        return sizes

    def _send(self, commands: list[bytes], events: int) -> None:
        self._place.send([b"".join(commands)])
        self._sent_entries += len(commands)
        self._sent_events += events
        while True:
            unread = self._sent_entries - self._place.state().read
            if time.monotonic() > self._sampled + _SAMPLE_SECONDS:
                self._sample(unread * _ENTRY_EVENTS)
            if unread < _AHEAD_ENTRIES:
                return
            self._workers.check()
            time.sleep(0.002)

    def _sample(self, unread_events: int) -> None:
        self._sampled = time.monotonic()
        read = self._sent_events - unread_events
        rss, memory = self._workers.rss(), self._place.memory()
        if read >= self._early_events and not self.early:
            self.early = self.memory(memory)
        curves = self._stage.results.curves
        curves.setdefault(f"{NAME}: {WORKER}", []).append((read, rss / _MB))
        curves.setdefault(f"{NAME}: {SERVER}", []).append((read, memory / _MB))
        self._stage.progress.at(f"{NAME}, {read:,} events read, worker {rss / _MB:.1f} MB")
