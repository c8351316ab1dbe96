"""Test the back-off of a message, and of a destination that is down."""

from __future__ import annotations

import pytest

from service.alerts.sending.health import (
    DOWN_AFTER,
    FIRST_PAUSE,
    LONGEST_CRITICAL_PAUSE,
    LONGEST_PAUSE,
    LONGEST_PROBE_PAUSE,
    MAX_UNDER_WAY,
    Health,
    pause_after,
)


@pytest.mark.parametrize(("attempts", "longest"), [(1, 1), (2, 2), (5, 16), (10, 512), (11, 900), (99, 900)])
def test_pause_is_random_below_a_bound_that_doubles(attempts: int, longest: float) -> None:
    """Draw a pause below a bound that doubles, so that messages do not retry at the same time."""
    pauses = [pause_after(attempts) for _ in range(300)]
    assert all(0 <= pause <= longest for pause in pauses)
    assert longest / 2 < max(pauses)
    assert min(pauses) < longest / 4
    assert FIRST_PAUSE == 1
    assert LONGEST_PAUSE == 900


def test_one_failure_does_not_pause_others() -> None:
    """Pause no other message after a single failure."""
    health = Health()
    health.failed(100, None)
    assert not health.down
    assert health.paused_until <= 100
    assert health.max_under_way == MAX_UNDER_WAY


def test_down_after_failures_in_a_row() -> None:
    """Probe a destination that is down with one message at a time."""
    health = Health()
    for _ in range(DOWN_AFTER):
        health.failed(100, None)
    assert health.down
    assert health.max_under_way == 1
    for _ in range(50):
        health.failed(100, None)
    assert 100 < health.paused_until <= 100 + LONGEST_PROBE_PAUSE
    assert LONGEST_PROBE_PAUSE == 60


def test_back_with_the_first_answer() -> None:
    """Report the first answer after an outage, so that waiting messages can be sent."""
    health = Health()
    for _ in range(DOWN_AFTER):
        health.failed(100, None)
    assert health.answered()
    assert not health.down
    assert not health.answered()


def test_pause_that_was_asked_for() -> None:
    """Respect the pause that a service requests. Otherwise it could block the relay."""
    health = Health()
    health.failed(100, 300)
    assert health.paused_until == 400
    health.failed(101, None)
    assert health.paused_until == 400


@pytest.mark.parametrize(("asked", "pause"), [(5, 5), (300, LONGEST_CRITICAL_PAUSE)])
def test_critical_messages_wait_for_the_first_seconds_of_a_pause(asked: float, pause: float) -> None:
    """Send critical messages after a short part of the pause."""
    health = Health()
    health.failed(100, asked)
    assert health.critical_paused_until == 100 + pause


def test_critical_messages_do_not_all_try_a_destination_that_is_down() -> None:
    """Include critical messages in the pause of a destination that is down."""
    health = Health()
    for _ in range(50):
        health.failed(100, None)
    assert health.critical_paused_until == health.paused_until > 100
