"""Panels of the drains: throughput, latency at a share of it, memory, processes, processor time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measurements import latency, processes, soak, throughput
from bench.panels.colors import BARE, INK, OURS, color_of
from bench.results import Figure, shown, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.results import Results


def draw_throughput(results: Results, axes: Axes) -> None:
    """Draw the throughputs as bars."""
    rows = [
        (case.name, competitor.name, figure)
        for case in (throughput.FIFTY, throughput.THOUSAND, throughput.BARE_SINGLE, throughput.SIXTEEN)
        for competitor in case.competitors
        if results.values(figure := Figure(throughput.NAME, case.name, competitor.name, throughput.EVENTS))
    ]
    for row, (_, who, figure) in enumerate(rows):
        median, least, most = spread(results.values(figure))
        axes.barh(row, median, color=color_of(who), height=0.7)
        axes.errorbar(median, row, xerr=[[median - least], [most - median]], color=INK, capsize=2)
        axes.annotate(f"  {shown(median)}", (most, row), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [f"{who}  ·  {case}" for case, who, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
    axes.set_title("One worker process, events a second")


def draw_latency(results: Results, axes: Axes) -> None:
    """Draw the percentiles of the delays."""
    styles = {latency.ECHO: (BARE, "s"), latency.TEXT: (OURS, "o"), latency.ALERT: ("#8250df", "^")}
    names = list(latency.PERCENTILES)
    for case, line in zip((*latency.SHARES, latency.OWN_HALF), ("--", "-", ":"), strict=True):
        for who, (color, marker) in styles.items():
            figures = [Figure(latency.NAME, case, who, f"{name}, ms") for name in names]
            if all(map(results.values, figures)):
                values = [spread(results.values(figure)).median for figure in figures]
                axes.plot(names, values, line, color=color, marker=marker, label=f"{who}, {case}")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("ms")
    axes.set_ylim(top=axes.get_ylim()[1] * 6)  # space for the legend
    axes.legend(fontsize=7, loc="upper left", ncols=2)
    axes.set_title("From XADD to what comes out of it")


def draw_memory(results: Results, axes: Axes) -> None:
    """Draw the memory of worker and server over the events."""
    for name, color in ((soak.WORKER, OURS), (soak.SERVER, BARE)):
        points = results.curves[f"{soak.NAME}: {name}"]
        axes.plot(
            [events / 1e6 for events, _ in points], [size for _, size in points], color=color, label=name
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("million events")
    axes.set_ylabel("MB")
    axes.legend()
    axes.set_title("Memory, while events go through")


def draw_processes(results: Results, axes: Axes) -> None:
    """Draw the throughputs of several processes."""
    numbers = list(processes.NUMBERS)
    spreads = [spread(results.values(processes.speed(number))) for number in numbers]
    places = list(range(len(numbers)))
    medians = [each.median for each in spreads]
    errors = [[each.median - each.least for each in spreads], [each.most - each.median for each in spreads]]
    axes.bar(places, medians, yerr=errors, capsize=3, color=OURS, width=0.55)
    for place, median in zip(places, medians, strict=True):
        label = f"{shown(median)}\n{median / medians[0]:.2f} times one"
        axes.annotate(label, (place, median / 2), ha="center", va="center", color="white", fontsize=9)
    axes.set_xticks(places, [processes.case_of(number) for number in numbers])
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel("events/s")
    axes.set_title("Worker processes on one stream")


def draw_cpu(results: Results, axes: Axes) -> None:
    """Draw the processor time an event."""
    case = throughput.FIFTY
    names = [
        each.name
        for each in case.competitors
        if results.values(_cpu_figure(each.name, throughput.WORKER_CPU))
    ]
    for offset, what, color in ((-0.2, throughput.WORKER_CPU, OURS), (0.2, throughput.SERVER_CPU, BARE)):
        medians = [spread(results.values(_cpu_figure(name, what))).median for name in names]
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
