"""Test the limit of log lines for each level and event."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from service.log_budget import WINDOW, LogBudget

if TYPE_CHECKING:
    from collections.abc import Callable


class Reports:
    """Records what a budget reports, and has its clock."""

    def __init__(self, burst: int) -> None:
        self.now = 0.0
        self.left_out: list[tuple[str, str, int, float]] = []
        self.overflows: list[float] = []
        self.budget = LogBudget(burst, self._report, self.overflows.append, lambda: self.now)

    def _report(self, level: str, name: str, lines: int, seconds: float) -> None:
        self.left_out.append((level, name, lines, seconds))


def admitted(admits: Callable[[str, str], bool], level: str, name: str, times: int) -> int:
    """Return how many of some equal lines are admitted."""
    return sum(admits(level, name) for _ in range(times))


def test_each_level_and_event_has_a_budget() -> None:
    """Admit a number of lines for each level and event. Otherwise a storm of one would hide the others."""
    made = Reports(3)
    admits = made.budget.admits
    assert admitted(admits, "warning", "a", 10) == 3
    assert admitted(admits, "warning", "b", 10) == 3
    assert admitted(admits, "info", "a", 10) == 3
    assert admitted(admits, "error", "a", 10) == 6, "errors have a larger budget"
    assert admitted(admits, "critical", "a", 10) == 6


def test_the_next_window_has_a_new_budget() -> None:
    """Admit lines again in the next window, and report those left out once, with the time."""
    made = Reports(2)
    assert admitted(made.budget.admits, "info", "a", 5) == 2
    made.now = WINDOW - 0.1
    assert admitted(made.budget.admits, "info", "a", 5) == 0
    made.now = WINDOW + 3
    assert admitted(made.budget.admits, "info", "b", 1) == 1
    assert made.left_out == [("info", "a", 8, WINDOW)]
    assert admitted(made.budget.admits, "info", "a", 1) == 1
    made.budget.end_window()
    assert len(made.left_out) == 1, "nothing was left out in the second window"


def test_a_timer_is_asked_for_once_a_window() -> None:
    """Ask for one timer a window, so that a storm makes no storm of timers."""
    made = Reports(1)
    made.now = 5
    admitted(made.budget.admits, "info", "a", 5)
    made.now = 7
    admitted(made.budget.admits, "info", "b", 5)
    assert made.overflows == [WINDOW]
    made.budget.end_window_if_over()
    assert made.left_out == [], "the window is not over"
    made.now = 5 + WINDOW
    made.budget.end_window_if_over()
    assert [each[:3] for each in made.left_out] == [("info", "a", 4), ("info", "b", 4)]


def test_zero_is_no_limit() -> None:
    """Admit all lines with a budget of 0."""
    made = Reports(0)
    assert admitted(made.budget.admits, "info", "a", 1000) == 1000
    made.budget.end_window()
    assert (made.left_out, made.overflows) == ([], [])


def test_many_names_share_a_budget() -> None:
    """Bound the number of budgets. Otherwise names from outside could fill the memory."""
    made = Reports(1)
    assert sum(made.budget.admits("info", f"name {n}") for n in range(10_000)) == 501
    made.budget.end_window()
    assert [each[:3] for each in made.left_out] == [("info", "(other)", 9499)]


@given(
    st.lists(
        st.tuples(st.floats(0, 6), st.sampled_from(["debug", "info", "error"]), st.sampled_from("ab")),
        max_size=200,
    ),
    st.integers(1, 4),
)
def test_each_line_is_written_or_counted(lines: list[tuple[float, str, str]], burst: int) -> None:
    """Write or count each line, and write at most the budget in any window."""
    made, written = Reports(burst), Counter[tuple[str, str]]()
    for pause, level, name in lines:
        made.now += pause
        written[level, name] += made.budget.admits(level, name)
    made.budget.end_window()
    for level, name, count, _ in made.left_out:
        written[level, name] += count
    assert +written == Counter((level, name) for _, level, name in lines)
