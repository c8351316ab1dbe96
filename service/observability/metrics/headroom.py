"""Estimate how close a worker is to its highest rate.

A worker that is always busy may still have room: at a low rate its batches are small, and most of its time
goes into what a batch costs however many entries it has. In larger batches that cost vanishes. So the share
of time with a batch in hand counts only as far as it belongs to the entries: a batch costs as much as
`BATCH_COST` entries, whatever the machine.

Between two batches a worker reads. If it waits for entries, that is no work. If they were there before, it
is work, and takes long on a busy machine or with a slow server. A batch of at least `BACKLOG_ENTRIES` was
there before. The time of reading it counts, but at most for as long as the batch is in hand: hours without
entries before a burst are not busy ones.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

BATCH_COST = 80
"""Entries that take as long as what a batch costs in addition to its entries."""

BACKLOG_ENTRIES = 500
"""Minimum entries of a batch that counts as a backlog."""

WINDOW_SECONDS = 30.0
"""Seconds over which the ratio is measured."""

_STEP_SECONDS = 1.0
"""Minimum seconds between two marks in the window."""


class _Mark(NamedTuple):
    """The totals at a time."""

    at: float
    busy: float
    entries: int
    batches: int


class Headroom:
    """Measures the share of its highest rate at which a worker works. Times are from `time.perf_counter`."""

    def __init__(self) -> None:
        now = time.perf_counter()
        self._in_hand = 0
        self._since = now
        """Time at which the first batch in hand began."""
        self._ended = now
        """Latest time at which no batch was left in hand."""
        self._reads_backlog = False
        """True if the first batch in hand is a backlog."""
        self._busy = 0.0
        self._entries = 0
        self._batches = 0
        self._marks = deque([_Mark(now, 0.0, 0, 0)])
        self._next_mark = now + _STEP_SECONDS

    def begin(self, entries: int) -> None:
        """Record that a batch is in hand."""
        now = time.perf_counter()
        if not self._in_hand:
            self._since = now
            self._reads_backlog = entries >= BACKLOG_ENTRIES
        self._in_hand += 1
        self._entries += entries
        self._batches += 1
        if now >= self._next_mark:
            self._mark(now)

    def end(self) -> None:
        """Record that a batch is no longer in hand."""
        self._in_hand -= 1
        if not self._in_hand:
            now = time.perf_counter()
            self._busy += self._busy_until(now)
            self._ended = now

    def ratio(self) -> float:
        """Return the ratio, from 0 to 1, over the last `WINDOW_SECONDS`."""
        now = self._mark(time.perf_counter())
        first = self._marks[0]
        entries, batches = now.entries - first.entries, now.batches - first.batches
        if not entries or now.at <= first.at:
            return 0.0
        share = min(1.0, (now.busy - first.busy) / (now.at - first.at))
        return share * entries / (entries + BATCH_COST * batches)

    def _busy_until(self, now: float) -> float:
        """Return the seconds since the first batch in hand began, and of reading it if it is a backlog."""
        in_hand = now - self._since
        return in_hand + min(in_hand, self._since - self._ended) if self._reads_backlog else in_hand

    def _mark(self, now: float) -> _Mark:
        """Add the totals to the window, and remove those that are too old; return them."""
        busy = self._busy + (self._busy_until(now) if self._in_hand else 0.0)
        mark = _Mark(now, busy, self._entries, self._batches)
        if now >= self._next_mark:
            self._marks.append(mark)
            self._next_mark = now + _STEP_SECONDS
        while len(self._marks) > 1 and self._marks[1].at <= now - WINDOW_SECONDS:
            self._marks.popleft()
        return mark
