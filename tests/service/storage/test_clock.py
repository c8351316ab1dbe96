"""The server's clock, as a worker knows it without asking."""

from __future__ import annotations

import pytest

from service.storage import clock
from service.storage.clock import ServerClock


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list whose only item is this process's monotonic clock, in milliseconds."""
    now = [0]
    monkeypatch.setattr(clock, "_monotonic_ms", lambda: now[0])
    return now


def test_the_quickest_answer_counts(ours: list[int]) -> None:
    """Otherwise one slow answer makes ids of now look as if they came from the future."""
    server = ServerClock()
    server.told(50_000)
    ours[0] = 400
    server.told(50_300)
    assert server.now_ms == 50_400


@pytest.mark.parametrize("moved_ms", [-3_600_000, 3_600_000])
def test_a_clock_that_is_set_anew_is_believed(ours: list[int], moved_ms: int) -> None:
    """Otherwise a server whose clock was wrong once has all texts dated wrong until the worker ends."""
    server = ServerClock()
    server.told(10_000_000)
    ours[0] = 10
    server.told(10_000_010 + moved_ms)
    assert server.now_ms == 10_000_010 + moved_ms
