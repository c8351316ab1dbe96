"""Test the server's clock as estimated by a worker."""

from __future__ import annotations

import pytest

from service.storage import server_clock as clock
from service.storage.server_clock import ServerClock


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list with one item: this process's monotonic clock in milliseconds."""
    now = [0]
    monkeypatch.setattr(clock, "_monotonic_ms", lambda: now[0])
    return now


def test_the_quickest_answer_counts(ours: list[int]) -> None:
    """Use the quickest reply. Otherwise a slow one would make current ids seem to be in the future."""
    server = ServerClock()
    server.observe(50_000)
    ours[0] = 400
    server.observe(50_300)
    assert server.now_ms == 50_400


@pytest.mark.parametrize("moved_ms", [-3_600_000, 3_600_000])
def test_a_clock_that_is_set_anew_is_believed(ours: list[int], moved_ms: int) -> None:
    """Follow a server clock that was adjusted. Otherwise texts would have wrong times until a restart."""
    server = ServerClock()
    server.observe(10_000_000)
    ours[0] = 10
    server.observe(10_000_010 + moved_ms)
    assert server.now_ms == 10_000_010 + moved_ms
