"""The plot of the comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # before pyplot is imported: there may be no screen

from matplotlib import pyplot as plt

from bench import report
from bench.goals import GOALS
from bench.measurements import latency, processes, soak, throughput
from bench.results import Figure, shown, spread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

    from bench.results import Results

_OURS, _BARE, _OTHERS = "#1f6feb", "#8b949e", "#c9b37e"
_REACHED, _MISSED = "#2da44e", "#cf222e"
_COLUMNS = 2
_TIMES_THE_GOAL = (0.1, 0.2, 0.5, 1, 2, 5, 10)
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


def draw(results: Results, described: dict[str, Any], file: Path) -> None:
    """Draw a panel for each measurement."""
    panels = [panel for panel, wanted in _PANELS if wanted(results)]
    if not panels:
        return
    with plt.rc_context(_STYLE):
        rows = -(-len(panels) // _COLUMNS)
        columns = min(_COLUMNS, len(panels))
        figure, axes = plt.subplots(
            rows, columns, figsize=(7.2 * columns, 4.2 * rows + 0.5), squeeze=False, layout="constrained"
        )
        for panel, place in zip(panels, axes.flat, strict=False):
            panel(results, place)
        for place in list(axes.flat)[len(panels) :]:
            place.axis("off")
        note = " (a quick run: the figures say nothing)" if described["quick"] else ""
        figure.suptitle(
            f"deltaloom, measured side by side{note}\n{described['system']}, {described['cores']} cores, "
            f"Python {described['python']}, {described['server']}; "
            f"{report.note_on_rounds(described['rounds'])}",
            fontsize=10,
        )
        figure.savefig(file, dpi=130)
        plt.close(figure)


def _measured(measurement: str) -> Callable[[Results], bool]:
    return lambda results: any(figure.measurement == measurement for figure in results.rounds)


def _color(who: str) -> str:
    if who.startswith("ours"):
        return _OURS
    return _BARE if who.startswith("bare") else _OTHERS


def _throughput(results: Results, axes: Axes) -> None:
    rows = [
        (case.name, competitor.name, figure)
        for case in (throughput.FIFTY, throughput.THOUSAND, throughput.BARE_SINGLE, throughput.SIXTEEN)
        for competitor in case.competitors
        if (figure := Figure(throughput.NAME, case.name, competitor.name, throughput.EVENTS))
        in results.rounds
    ]
    for row, (_, who, figure) in enumerate(rows):
        median, least, most = spread(results.rounds[figure])
        axes.barh(row, median, color=_color(who), height=0.7)
        axes.errorbar(median, row, xerr=[[median - least], [most - median]], color="#24292f", capsize=2)
        axes.annotate(f"  {shown(median)}", (most, row), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [f"{who}  ·  {case}" for case, who, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
    axes.set_title("One worker process, events a second")


def _goals(results: Results, axes: Axes) -> None:
    measured = [(goal, values) for goal in GOALS if (values := results.ratios(goal.over, goal.under))]
    for row, (goal, values) in enumerate(measured):
        limit = goal.at_least if goal.at_least is not None else goal.at_most or 1.0
        good = [value / limit if goal.at_least is not None else limit / value for value in values]
        median, least, most = spread(good)
        color = _REACHED if goal.reached(spread(values).median) else _MISSED
        axes.plot([least, most], [row, row], color=color, linewidth=2, alpha=0.5)
        axes.plot(median, row, "o", color=color, markersize=8)
        label = f"{shown(spread(values).median)}  (goal {goal.goal})"
        axes.annotate(
            label, (median, row), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    axes.axvline(1, color="#24292f", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(measured)), [_wrapped(goal.says) for goal, _ in measured], fontsize=7.5)
    axes.set_ylim(len(measured) - 0.5, -0.7)
    axes.set_xscale("log")
    axes.set_xticks(_TIMES_THE_GOAL, [f"{times:g}" for times in _TIMES_THE_GOAL])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.2)
    axes.grid(visible=False, axis="y")
    axes.set_title("Goals: right of the line is reached")


def _wrapped(text: str, width: int = 44) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(line.strip() for line in lines)


def _latency(results: Results, axes: Axes) -> None:
    styles = {latency.ECHO: (_BARE, "s"), latency.TEXT: (_OURS, "o"), latency.ALERT: ("#8250df", "^")}
    names = list(latency.PERCENTILES)
    for case, line in zip((*latency.SHARES, latency.OWN_HALF), ("--", "-", ":"), strict=True):
        for who, (color, marker) in styles.items():
            figures = [Figure(latency.NAME, case, who, f"{name}, ms") for name in names]
            if all(figure in results.rounds for figure in figures):
                values = [spread(results.rounds[figure]).median for figure in figures]
                axes.plot(names, values, line, color=color, marker=marker, label=f"{who}, {case}")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("ms")
    axes.set_ylim(top=axes.get_ylim()[1] * 6)  # space for the legend
    axes.legend(fontsize=7, loc="upper left", ncols=2)
    axes.set_title("From XADD to what comes out of it")


def _memory(results: Results, axes: Axes) -> None:
    for name, color in ((soak.WORKER, _OURS), (soak.SERVER, _BARE)):
        points = results.curves[f"{soak.NAME}: {name}"]
        axes.plot(
            [events / 1e6 for events, _ in points], [size for _, size in points], color=color, label=name
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("million events")
    axes.set_ylabel("MB")
    axes.legend()
    axes.set_title("Memory, while events go through")


def _processes(results: Results, axes: Axes) -> None:
    numbers = list(processes.NUMBERS)
    spreads = [spread(results.rounds[processes.speed(number)]) for number in numbers]
    places = list(range(len(numbers)))
    medians = [each.median for each in spreads]
    errors = [[each.median - each.least for each in spreads], [each.most - each.median for each in spreads]]
    axes.bar(places, medians, yerr=errors, capsize=3, color=_OURS, width=0.55)
    for place, median in zip(places, medians, strict=True):
        label = f"{shown(median)}\n{median / medians[0]:.2f} times one"
        axes.annotate(label, (place, median / 2), ha="center", va="center", color="white", fontsize=9)
    axes.set_xticks(places, [processes.case_of(number) for number in numbers])
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel("events/s")
    axes.set_title("Worker processes on one stream")


def _cpu(results: Results, axes: Axes) -> None:
    case = throughput.FIFTY
    names = [
        each.name
        for each in case.competitors
        if _cpu_figure(each.name, throughput.WORKER_CPU) in results.rounds
    ]
    for offset, what, color in ((-0.2, throughput.WORKER_CPU, _OURS), (0.2, throughput.SERVER_CPU, _BARE)):
        medians = [spread(results.rounds[_cpu_figure(name, what)]).median for name in names]
        axes.bar([place + offset for place in range(len(names))], medians, 0.38, color=color, label=what)
        for place, median in enumerate(medians):
            axes.annotate(shown(median), (place + offset, median), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yscale("log")
    axes.grid(visible=False, axis="x")
    axes.legend(fontsize=8)
    axes.set_title(f"Processor time, {case.name}")


def _cpu_figure(who: str, what: str) -> Figure:
    return Figure(throughput.NAME, throughput.FIFTY.name, who, what)


_PANELS: tuple[tuple[Callable[[Results, Axes], None], Callable[[Results], bool]], ...] = (
    (_goals, lambda results: any(results.ratios(goal.over, goal.under) for goal in GOALS)),
    (_throughput, _measured(throughput.NAME)),
    (_latency, _measured(latency.NAME)),
    (_memory, _measured(soak.NAME)),
    (_processes, _measured(processes.NAME)),
    (_cpu, _measured(throughput.NAME)),
)
