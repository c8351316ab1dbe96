"""Panels of steady load: processor time and delays over the rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import LogLocator, NullLocator

from bench.competitors import NOBODY, OURS
from bench.measurements.paced import figures, rates
from bench.panels.colors import INK, line_color
from bench.results import Figure, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.results import Results

_RATES = sorted((*rates.RATES, *rates.QUICK_RATES))


def draw_worker_cpu(results: Results, axes: Axes) -> None:
    """Draw the processor time of the workers over the rate."""
    for competitor in reversed(rates.COMPETITORS):
        _line(results, axes, competitor.name, figures.WORKER_CPU)
    _finish(results, axes, "% of a core")
    axes.set_title("Worker, processor time")


def draw_server_cpu(results: Results, axes: Axes) -> None:
    """Draw the processor time of the server over the rate, and what it needs for the publisher alone."""
    for competitor in reversed(rates.COMPETITORS):
        _line(results, axes, competitor.name, figures.SERVER_CPU)
    _line(results, axes, NOBODY.name, figures.SERVER_CPU, ":", INK)
    _finish(results, axes, "% of a core")
    axes.set_title("Server, processor time")


def draw_texts(results: Results, axes: Axes) -> None:
    """Draw the delays of texts over the rate."""
    _delays(results, axes, figures.TEXT_P50, figures.TEXT_P99)
    axes.set_title("Closing event to text: p50, and p99 dashed")


def draw_alerts(results: Results, axes: Axes) -> None:
    """Draw the delays of opened alerts over the rate."""
    _delays(results, axes, figures.ALERT_P50, figures.ALERT_P99)
    axes.set_title("First delta to opened alert: p50, and p99 dashed")


def _delays(results: Results, axes: Axes, p50: str, p99: str) -> None:
    for competitor in reversed(rates.COMPETITORS):
        _line(results, axes, competitor.name, p50)
        _line(results, axes, competitor.name, p99, "--", label="")
    _finish(results, axes, "ms")


def _line(
    results: Results,
    axes: Axes,
    who: str,
    what: str,
    style: str = "-",
    color: str | None = None,
    label: str | None = None,
) -> None:
    """Draw the medians of a figure, and the span of its rounds."""
    points = [
        (rate, spread(values))
        for rate in _RATES
        if (values := results.values(Figure(figures.NAME, rates.case_of(rate), who, what)))
    ]
    if not points:
        return
    at = [rate for rate, _ in points]
    color = color or line_color(who)
    width = 2.2 if who == OURS.name else 1.4
    medians = [each.median for _, each in points]
    name = who if label is None else label
    axes.plot(at, medians, style, color=color, linewidth=width, marker="o", markersize=4, label=name)
    axes.fill_between(
        at, [each.least for _, each in points], [each.most for _, each in points], color=color, alpha=0.12
    )


def _finish(results: Results, axes: Axes, unit: str) -> None:
    """Scale the axes, and name the lines in the order of the competitors."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    cases = {figure.case for figure in results.rounds}
    measured = [rate for rate in _RATES if rates.case_of(rate) in cases]
    axes.set_xticks(measured, [f"{rate:,}" for rate in measured])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("events/s")
    axes.set_ylabel(unit)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], fontsize=8)
