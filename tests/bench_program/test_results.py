"""Test ratios, goals and the display of numbers."""

from __future__ import annotations

from typing import Any

import pytest

from bench.quantity import Quantity
from bench.report import table
from bench.results import Figure, Results, percentile, shown, spread

OURS = Figure("throughput", "50 open", "ours", "events/s")
BARE = Figure("throughput", "50 open", "bare", "events/s")


def test_ratios_are_taken_within_a_round() -> None:
    """Compute ratios within a round. Otherwise a slow minute of the machine would change them."""
    results = Results()
    for ours, bare in ((10, 20), (1, 2), (30, 40)):
        results.add(OURS, ours)
        results.add(BARE, bare)
    assert results.ratios(OURS, BARE) == [0.5, 0.5, 0.75]
    assert spread(results.ratios(OURS, BARE)) == (0.5, 0.5, 0.75)


def test_missing_measurements_have_no_ratio() -> None:
    """Return no ratio without measurements, as in a partial run."""
    results = Results()
    results.add(OURS, 10)
    assert results.ratios(OURS, BARE) == []


def test_void_rounds_are_in_no_ratio() -> None:
    """Leave out void rounds, and compare the others with their own round."""
    results = Results()
    for ours, bare in ((10, 20), (None, 2), (3, None), (30, 40)):
        results.add(OURS, ours)
        results.add(BARE, bare)
    assert results.ratios(OURS, BARE) == [0.5, 0.75]
    assert results.values(OURS) == [10, 3, 30]


def test_a_goal_is_reached_on_its_side() -> None:
    """Compare a value with its minimum or its maximum."""
    assert Quantity("", OURS, BARE, at_least=0.75).reached(0.75)
    assert not Quantity("", OURS, BARE, at_least=0.75).reached(0.74)
    assert Quantity("", OURS, at_most=4).reached(4)
    assert not Quantity("", OURS, at_most=4).reached(4.1)
    assert Quantity("", OURS, at_most=4).goal == "≤ 4"


def test_a_goal_is_for_a_ratio_or_for_a_figure() -> None:
    """Take the value of a figure, or its ratio to another one."""
    results = Results()
    results.add(OURS, 10)
    assert Quantity("", OURS).values(results) == [10]
    assert not Quantity("", OURS, BARE).measured(results)
    results.add(BARE, 40)
    assert Quantity("", OURS, BARE).values(results) == [0.25]


def test_the_floor_is_what_the_server_takes() -> None:
    """Compute the ratio that a client of zero cost would reach: 4 µs of the server an event, 100,000/s."""
    results = Results()
    costs = [figure._replace(what="server CPU, s per million events") for figure in (OURS, BARE)]
    for figure, value in ((OURS, 50_000), (BARE, 100_000), (costs[0], 4), (costs[1], 2)):
        results.add(figure, value)
    assert Quantity("", OURS, BARE, server=(costs[0], costs[1])).floor(results) == (4, 2, 2.5)
    assert Quantity("", OURS, BARE).floor(results) is None


def test_void_rounds_are_shown() -> None:
    """Show rounds that are void, alone and next to others."""
    results = Results()
    one = Figure("paced", "1,000 events/s", "ours", "worker CPU, %")
    two = one._replace(what="commands an event")
    for first, second in ((None, 3), (None, None), (None, 1)):
        results.add(one, first)
        results.add(two, second)
    described: dict[str, Any] = {"rounds": 3, "quick": False, "packages": {}}
    described |= dict.fromkeys(("date", "system", "cores", "python", "server"), "")
    lines = list(table(results, described))
    assert "| 1,000 events/s | ours | void | 2 (1 - 3), 1 void |" in lines
    assert "| worker CPU at 1,000 events/s, % of a core | ≤ 15 | void |  |  |" in lines


def test_percentiles_are_values() -> None:
    """Return the value that at most the given share exceeds."""
    assert percentile([3, 1, 2, 4], 0.5) == 3
    assert percentile([5], 0.99) == 5
    assert percentile(range(1000), 0.99) == 990


@pytest.mark.parametrize(
    ("number", "text"), [(1234567.8, "1,234,568"), (123.4, "123"), (12.34, "12.3"), (0.5, "0.5"), (0, "0")]
)
def test_numbers_are_short(number: float, text: str) -> None:
    """Show at most three significant digits below 1000."""
    assert shown(number) == text
