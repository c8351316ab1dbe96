"""Test the simulation of the autoscaler: Kubernetes' formula, and lags of a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis import Redis

from bench.scaling import CAPACITY, STARTING, STEP, Autoscaler, Rules, simulate, wait_of
from embedded.embedded_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Sequence

RULES = Rules(target=100, lowest=1, highest=6, up=2, up_period=30, down=1, down_period=60, down_window=60)


def pods(lags: Sequence[float]) -> list[int]:
    """Return the number of pods after each look."""
    scaler = Autoscaler(RULES)
    return [scaler.look(number * STEP, lag) for number, lag in enumerate(lags)]


def test_demand_is_the_lag_for_each_worker() -> None:
    """Want one worker for each `target` entries, at least one, and change nothing for small differences."""
    assert pods([0]) == [1]
    assert pods([109]) == [1]
    assert pods([111]) == [2]
    assert pods([201]) == [3]


def test_pods_are_added_by_the_policy_up_to_the_maximum() -> None:
    """Add two pods in 30 seconds at most, that is at every second look."""
    assert pods([10_000] * 6) == [3, 3, 5, 5, 6, 6]


def test_pods_are_removed_late_and_one_by_one() -> None:
    """Remove a pod when the demand has been lower for the window, and one a minute."""
    assert pods([300] + [0] * 13) == [3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]


def test_lag_is_that_of_the_server() -> None:
    """Have the lag rise while one worker is too few, and fall when the new ones work."""
    rules = RULES._replace(target=30_000)
    with EmbeddedServer(protected=False) as server, Redis.from_url(server.url) as client:
        looks = simulate(rules, client, 20 * STEP, lambda _: 1.5 * CAPACITY)
        quiet = simulate(rules, client, 4 * STEP, lambda _: 0.5 * CAPACITY)
    before = STARTING // STEP
    assert [look.working for look in looks[:before]] == [1] * before
    assert [look.lag for look in looks[:before]] == [CAPACITY * STEP / 2 * n for n in range(1, before + 1)]
    assert looks[before].working > 1
    assert [wait_of(look) for look in looks[-3:]] == [0, 0, 0]
    assert [(look.lag, look.pods) for look in quiet] == [(0, 1)] * 4
