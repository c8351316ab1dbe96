"""The plan of faults: seeded, complete, within the run."""

from __future__ import annotations

from chaos.plan import INTERVALS, make_plan


def test_the_same_seed_gives_the_same_plan() -> None:
    """A run that found something must be able to be run again."""
    assert make_plan("a", 60, INTERVALS) == make_plan("a", 60, INTERVALS)
    assert make_plan("a", 60, INTERVALS) != make_plan("b", 60, INTERVALS)


def test_every_kind_happens_also_in_a_short_run() -> None:
    """CI runs a minute: a kind that comes only in long runs would not be tested there."""
    assert {fault.kind for fault in make_plan("a", 20, INTERVALS)} == set(INTERVALS)


def test_half_an_hour_has_the_kills_that_are_asked_for() -> None:
    """At least 200 worker kills and 20 server kills in 30 minutes, with some to spare."""
    kinds = [fault.kind for fault in make_plan("a", 1800, INTERVALS)]
    assert kinds.count("worker-kill") >= 250
    assert kinds.count("server-kill") >= 30


def test_faults_are_within_the_run_and_in_order() -> None:
    """What comes after the end would disturb the settling."""
    plan = make_plan("a", 60, INTERVALS)
    assert plan == sorted(plan)
    assert all(0 <= fault.at <= 60 for fault in plan)
