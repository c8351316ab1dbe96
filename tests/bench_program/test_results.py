"""Test ratios, goals and the display of numbers."""

from __future__ import annotations

import pytest

from bench.goals import Ratio
from bench.results import Figure, Results, shown, spread

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


def test_a_goal_is_reached_on_its_side() -> None:
    """Compare a ratio with its minimum or its maximum."""
    assert Ratio("", OURS, BARE, at_least=0.75).reached(0.75)
    assert not Ratio("", OURS, BARE, at_least=0.75).reached(0.74)
    assert Ratio("", OURS, BARE, at_most=4).reached(4)
    assert not Ratio("", OURS, BARE, at_most=4).reached(4.1)
    assert Ratio("", OURS, BARE, at_most=4).goal == "≤ 4"


@pytest.mark.parametrize(
    ("number", "text"), [(1234567.8, "1,234,568"), (123.4, "123"), (12.34, "12.3"), (0.5, "0.5"), (0, "0")]
)
def test_numbers_are_short(number: float, text: str) -> None:
    """Show at most three significant digits below 1000."""
    assert shown(number) == text
