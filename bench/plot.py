"""The plots: `plot.png` of the comparison, `paced.png` of steady load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")  # before pyplot is imported: there may be no screen

from matplotlib import pyplot as plt

from bench import report
from bench.goals import DRAINS, STEADY
from bench.measurements import latency, paced, processes, soak, throughput
from bench.panels import drains, load
from bench.panels.goals import draw_goals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from bench.quantity import Quantity
    from bench.results import Results

    Panel = Callable[[Results, Axes], None]

_COLUMNS = 2
_WIDTH, _HEIGHT = 7.2, 4.2
"""Size of a panel in inches."""
_HEIGHT_OF_A_GOAL = 0.33
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
}


class Sheet(NamedTuple):
    """A plot: panels in two columns, and goals in a row of their own below."""

    file: str
    title: str
    panels: Sequence[tuple[str, Panel]]
    """Measurements, each with a panel that shows it."""
    goals: Sequence[Quantity]


def draw(results: Results, described: dict[str, Any], folder: Path) -> None:
    """Draw each plot for which something was measured."""
    for sheet in _SHEETS:
        _draw(sheet, results, described, folder)


def _draw(sheet: Sheet, results: Results, described: dict[str, Any], folder: Path) -> None:
    measured = {figure.measurement for figure in results.rounds}
    panels = [panel for measurement, panel in sheet.panels if measurement in measured]
    goals = [goal for goal in sheet.goals if goal.values(results)]
    if not panels and not goals:
        return
    height, height_of_goals = _HEIGHT * -(-len(panels) // _COLUMNS), _HEIGHT_OF_A_GOAL * (len(goals) + 2)
    with plt.rc_context(_STYLE):
        figure = plt.figure(figsize=(_WIDTH * _COLUMNS, height + height_of_goals + 0.5), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(max(height, 0.1), height_of_goals))
        above, below = parts  # each with a layout of its own, as the names of goals are long
        _draw_panels(panels, results, above)
        if goals:
            draw_goals(goals, results, below.add_subplot())
        note = " (a quick run: the figures say nothing)" if described["quick"] else ""
        figure.suptitle(
            f"deltaloom, {sheet.title}{note}\n{described['system']}, {described['cores']} cores, "
            f"Python {described['python']}, {described['server']}; "
            f"{report.note_on_rounds(described['rounds'])}",
            fontsize=10,
        )
        figure.savefig(folder / sheet.file, dpi=130)
        plt.close(figure)


def _draw_panels(panels: Sequence[Panel], results: Results, figure: SubFigure) -> None:
    """Draw panels in rows of two; the last one fills its row."""
    grid = figure.add_gridspec(-(-len(panels) // _COLUMNS) or 1, _COLUMNS)
    for number, panel in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        alone = column == 0 and panel is panels[-1]
        panel(results, figure.add_subplot(grid[row, :] if alone else grid[row, column]))


_SHEETS = (
    Sheet(
        "plot.png",
        "measured side by side",
        (
            (throughput.NAME, drains.draw_throughput),
            (throughput.NAME, drains.draw_cpu),
            (latency.NAME, drains.draw_latency),
            (processes.NAME, drains.draw_processes),
            (soak.NAME, drains.draw_memory),
        ),
        DRAINS,
    ),
    Sheet(
        "paced.png",
        "under steady load and idle",
        (
            (paced.NAME, load.draw_worker_cpu),
            (paced.NAME, load.draw_server_cpu),
            (paced.NAME, load.draw_texts),
            (paced.NAME, load.draw_alerts),
        ),
        STEADY,
    ),
)
