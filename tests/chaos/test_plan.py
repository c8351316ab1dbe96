"""Test the plan of faults: reproducible, complete, and within the run."""

from __future__ import annotations

from chaos.plan import INTERVALS, make_plan


def test_the_same_seed_gives_the_same_plan() -> None:
    """Make the same plan from one seed, so that a violation can be reproduced."""
    assert make_plan("a", 60, INTERVALS) == make_plan("a", 60, INTERVALS)
    assert make_plan("a", 60, INTERVALS) != make_plan("b", 60, INTERVALS)


def test_every_kind_happens_also_in_a_short_run() -> None:
    """Include all kinds of faults in a run of 20 seconds, since CI runs for a minute."""
    assert {fault.kind for fault in make_plan("a", 20, INTERVALS)} == set(INTERVALS)


def test_half_an_hour_has_the_kills_that_are_asked_for() -> None:
    """Plan more than the required 200 worker kills and 20 server kills in 30 minutes."""
    kinds = [fault.kind for fault in make_plan("a", 1800, INTERVALS)]
    assert kinds.count("worker-kill") >= 250
    assert kinds.count("server-kill") >= 30


def test_faults_are_within_the_run_and_in_order() -> None:
    """Plan faults in order and within the run. Otherwise they would disturb the settling."""
    plan = make_plan("a", 60, INTERVALS)
    assert plan == sorted(plan)
    assert all(0 <= fault.at <= 60 for fault in plan)
