"""Panel of goals: how far each was reached or missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.panels.colors import INK, MISSED, REACHED
from bench.results import shown, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from bench.quantity import Quantity
    from bench.results import Results

_TIMES_THE_GOAL = (0.1, 0.2, 0.5, 1, 2, 5, 10)


def draw_goals(goals: Sequence[Quantity], results: Results, axes: Axes) -> None:
    """Draw a row for each goal that was measured."""
    measured = [(goal, values) for goal in goals if (values := goal.values(results))]
    for row, (goal, values) in enumerate(measured):
        limit = goal.at_least if goal.at_least is not None else goal.at_most or 1.0
        good = [
            _times(value, limit) if goal.at_least is not None else _times(limit, value) for value in values
        ]
        median, least, most = spread(good)
        color = REACHED if goal.reached(spread(values).median) else MISSED
        axes.plot([least, most], [row, row], color=color, linewidth=2, alpha=0.5)
        axes.plot(median, row, "o", color=color, markersize=7)
        axes.annotate(
            f"{shown(spread(values).median)}  (goal {goal.goal})",
            (most, row),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.axvline(1, color=INK, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(measured)), [goal.says for goal, _ in measured], fontsize=8)
    axes.set_ylim(len(measured) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlim(_TIMES_THE_GOAL[0] * 0.9, _TIMES_THE_GOAL[-1] * 1.4)
    axes.set_xticks(_TIMES_THE_GOAL, [f"{times:g}" for times in _TIMES_THE_GOAL])
    axes.set_xticks([], minor=True)
    axes.grid(visible=False, axis="y")
    axes.set_title("Times as good as its goal: right of the line is reached")


def _times(over: float, under: float) -> float:
    """Return a quotient, between the ends of the axis."""
    ends = _TIMES_THE_GOAL[0], _TIMES_THE_GOAL[-1]
    return max(ends[0], min(over / under, ends[1])) if under else ends[1]
