"""Test the token bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alerts.sending.token_bucket import TokenBucket


def test_burst_then_evenly() -> None:
    """Allow the burst at once, and then one message per interval."""
    bucket = TokenBucket(per_minute=60, burst=3, now=100)
    for _ in range(3):
        assert bucket.seconds_until_token(100) == 0
        bucket.consume(100)
    assert bucket.seconds_until_token(100) == pytest.approx(1)
    assert bucket.seconds_until_token(101) == pytest.approx(0)


@given(
    per_minute=st.floats(0.5, 600),
    burst=st.integers(1, 20),
    pauses=st.lists(st.floats(0, 300), min_size=1, max_size=60),
)
def test_never_more_than_the_rate_and_the_burst(per_minute: float, burst: int, pauses: list[float]) -> None:
    """Allow at most the burst plus the rate in any period, without longer waits than necessary."""
    now = 0.0
    bucket = TokenBucket(per_minute, burst, now)
    went: list[float] = []
    for pause in pauses:
        now += pause
        now += bucket.seconds_until_token(now)
        assert bucket.seconds_until_token(now) == pytest.approx(0, abs=1e-6)
        bucket.consume(now)
        went.append(now)
    for first, began in enumerate(went):
        for last in range(first, len(went)):
            allowed = burst + (went[last] - began) * per_minute / 60
            assert last - first + 1 <= allowed + 1e-6
