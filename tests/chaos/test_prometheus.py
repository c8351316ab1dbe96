"""Test the comparison of metrics with the accounts of a run."""

from __future__ import annotations

import pytest

from chaos.prometheus import compare, expressions, has_value, increase


@pytest.mark.parametrize(
    ("values", "grown"),
    [
        ((), 0),
        ((3,), 3),
        ((0, 2, 2, 5), 5),
        ((0, 2, 5, 1, 4), 9),
    ],
    ids=["never-scraped", "scraped-once", "one-process", "restarted"],
)
def test_a_counter_goes_on_over_restarts(values: tuple[float, ...], grown: float) -> None:
    """Add what each process counted: a new one begins at 0."""
    assert increase(values) == grown


@pytest.mark.parametrize(
    ("value", "exact", "says"),
    [
        (10, True, None),
        (9, True, "texts: the metrics say 9, the accounts 10"),
        (9, False, None),
        (11, False, "texts: the metrics say 11, the accounts 10"),
    ],
)
def test_metrics_are_never_above_the_accounts(value: float, *, exact: bool, says: str | None) -> None:
    """Allow less than the account only where processes were killed, and never more."""
    found: list[str] = []
    compare({"texts": value}, {"texts": (10, 10)}, exact=exact, wrong=found.append)
    assert found == ([says] if says else [])


def test_a_range_is_shown() -> None:
    """Name both ends of a range that a value is outside of."""
    found: list[str] = []
    compare({"events": 3}, {"events": (5, 8)}, exact=True, wrong=found.append)
    assert found == ["events: the metrics say 3, the accounts 5 to 8"]


def test_all_expressions_of_the_dashboard_are_evaluated() -> None:
    """Leave out those of programs that do not run, and only these; replace Grafana's variables."""
    found = expressions(70, ("deltaloom_tap_",))
    assert 'max (deltaloom_input_oldest_seconds{job=~".*"})' in found
    assert 'sum(increase(deltaloom_dead_letters_total{job=~".*"}[24h])) or vector(0)' in found
    assert any("[70s]" in each for each in found)
    assert not any("$" in each or "deltaloom_tap_" in each for each in found)
    assert len(expressions(70, ())) > len(found) > 40


@pytest.mark.parametrize(("values", "has"), [((), False), (("NaN",), False), (("NaN", "0"), True)])
def test_a_panel_without_numbers_is_empty(values: tuple[str, ...], *, has: bool) -> None:
    """Count zero as a value, but not the quantile of no observations."""
    assert has_value([{"value": [1.0, value]} for value in values]) is has
