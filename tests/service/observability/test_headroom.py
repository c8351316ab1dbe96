"""Test the estimate of how close a worker is to its highest rate, on a clock of the test."""

from __future__ import annotations

import pytest

from service.observability.metrics import headroom
from service.observability.metrics.headroom import BACKLOG_ENTRIES, BATCH_COST, WINDOW_SECONDS, Headroom


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the module."""
    clock = Clock()
    monkeypatch.setattr(headroom, "time", clock)
    return clock


def work(measured: Headroom, clock: Clock, seconds: float, *, entries: int, share: float) -> None:
    """Have one batch a second in hand for a share of it."""
    for _ in range(round(seconds)):
        measured.begin(entries)
        clock.now += share
        measured.end()
        clock.now += 1 - share


@pytest.mark.parametrize(
    ("entries", "share", "ratio"),
    [
        (100 * BATCH_COST, 1.0, 100 / 101),
        (BATCH_COST, 1.0, 1 / 2),
        (BATCH_COST, 0.5, 1 / 4),
        (1, 1.0, 1 / (1 + BATCH_COST)),
    ],
)
def test_time_counts_as_far_as_it_belongs_to_entries(
    clock: Clock, entries: int, share: float, ratio: float
) -> None:
    """Say that a worker with small batches has room, although it is always busy."""
    measured = Headroom()
    work(measured, clock, 40, entries=entries, share=share)
    assert measured.ratio() == pytest.approx(ratio, abs=0.01)


def test_only_the_last_half_minute_counts(clock: Clock) -> None:
    """Forget an earlier load, and the idle time before a load, so that the ratio is that of now."""
    measured = Headroom()
    assert measured.ratio() == 0
    clock.now += 3600
    work(measured, clock, WINDOW_SECONDS + 2, entries=100 * BATCH_COST, share=1.0)
    assert measured.ratio() > 0.9
    clock.now += WINDOW_SECONDS / 2
    assert 0.3 < measured.ratio() < 0.7
    clock.now += WINDOW_SECONDS + 2
    measured.ratio()
    assert measured.ratio() == 0


def test_batches_in_hand_at_once_count_once(clock: Clock) -> None:
    """Count time with two batches in hand once, and a batch that is still in hand up to now."""
    measured = Headroom()
    work(measured, clock, 10, entries=10_000, share=0.0)
    measured.begin(1)  # so that the next one is not read in the second before
    measured.end()
    for _ in range(2):
        measured.begin(10_000)
    clock.now += 5
    measured.end()
    clock.now += 5
    assert measured.ratio() == pytest.approx(0.5, abs=0.01)
    measured.end()
    clock.now += 10
    assert measured.ratio() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("entries", "share", "ratio"),
    [(BACKLOG_ENTRIES, 0.6, 1.0), (BACKLOG_ENTRIES, 0.1, 0.2), (BACKLOG_ENTRIES - 1, 0.6, 0.6)],
)
def test_reading_a_backlog_is_work(clock: Clock, entries: int, share: float, ratio: float) -> None:
    """Say that a worker has no room if it always reads or processes, and a backlog waits for it.

    Without that, a worker that gets too little of the processor seems to have room: its reads take long.
    """
    measured = Headroom()
    work(measured, clock, 40, entries=entries, share=share)
    assert measured.ratio() == pytest.approx(ratio * entries / (entries + BATCH_COST), abs=0.02)


def test_wait_before_a_burst_is_no_work(clock: Clock) -> None:
    """Count no hours without entries as time of reading the burst that ends them."""
    measured = Headroom()
    clock.now += 3600
    measured.begin(10_000)
    clock.now += 0.5
    measured.end()
    clock.now += WINDOW_SECONDS / 2
    assert measured.ratio() < 0.1
