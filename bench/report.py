"""The written results: a table for people, and a file for machines."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.competitors import ALL
from bench.goals import BESIDES, GOALS
from bench.results import Figure, shown, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bench.goals import Ratio
    from bench.ground import Ground
    from bench.options import Options
    from bench.results import Results

_PACKAGES = ("deltaloom-worker", "faststream", "hiredis", "msgspec", "pydantic", "redis", "uvloop")


def environment(options: Options, place: Ground) -> dict[str, Any]:
    """Return the environment of the run: machine, versions and options."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "server": place.describe(),
        "packages": {name: version(name) for name in _PACKAGES},
        "rounds": options.rounds,
        "events": options.events,
        "seed": options.seed,
        "quick": options.quick,
    }


def as_dict(results: Results, described: dict[str, Any]) -> dict[str, Any]:
    """Return all results as plain data."""
    return {
        "environment": described,
        "goals": [
            _ratio_as_dict(results, ratio) for ratio in GOALS if results.ratios(ratio.over, ratio.under)
        ],
        "ratios": [
            _ratio_as_dict(results, ratio) for ratio in BESIDES if results.ratios(ratio.over, ratio.under)
        ],
        "figures": [
            {**figure._asdict(), **spread(values)._asdict(), "rounds": values}
            for figure, values in results.rounds.items()
        ],
        "curves": results.curves,
        "notes": results.notes,
        "wrong": results.wrong,
    }


def _ratio_as_dict(results: Results, ratio: Ratio) -> dict[str, Any]:
    values = results.ratios(ratio.over, ratio.under)
    described: dict[str, Any] = {"what": ratio.says, **spread(values)._asdict(), "rounds": values}
    if ratio.goal:
        described |= {"goal": ratio.goal, "reached": ratio.reached(spread(values).median)}
    return described


def write(results: Results, described: dict[str, Any], folder: Path) -> None:
    """Write `table.md` and `results.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_dict(results, described), indent=2, ensure_ascii=False)
    (folder / "results.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / "table.md").write_text("\n".join(table(results, described)) + "\n", encoding="utf-8")


def note_on_rounds(rounds: int) -> str:
    """Return a note about the rounds that the figures come from."""
    return "one round" if rounds == 1 else f"medians of {rounds} rounds, with minimum and maximum"


def table(results: Results, described: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the Markdown page, ratios first."""
    packages = ", ".join(f"{name} {number}" for name, number in described["packages"].items())
    yield "# The bench"
    yield ""
    yield (
        f"{described['date']}, {described['system']}, {described['cores']} cores, "
        f"Python {described['python']}, {described['server']}; {packages}. "
        f"In each round everyone had a turn; {note_on_rounds(described['rounds'])}. "
        "Ratios are taken within a round."
    )
    if described["quick"]:
        yield from ("", "**A quick run, everything in small: its figures say nothing.**")
    if results.wrong:
        yield ""
        yield "**Wrong texts: the figures below say nothing.**"
        yield ""
        yield from (f"- {line}" for line in results.wrong)
    yield from _ratios(results, "Goals", GOALS)
    yield from _ratios(results, "Ratios besides", BESIDES)
    for measurement in dict.fromkeys(figure.measurement for figure in results.rounds):
        yield from _figures(results, measurement)
    yield ""
    yield "## Who is who"
    yield ""
    yield from (f"- *{each.name}*: {each.says}" for each in ALL)


def _ratios(results: Results, title: str, ratios: Iterable[Ratio]) -> Iterator[str]:
    rows = []
    for ratio in ratios:
        values = results.ratios(ratio.over, ratio.under)
        if values:
            median, least, most = spread(values)
            verdict = "" if not ratio.goal else "reached" if ratio.reached(median) else "**missed**"
            cells = (ratio.says, ratio.goal, shown(median), f"{shown(least)} - {shown(most)}", verdict)
            rows.append(f"| {' | '.join(cells)} |")
    if rows:
        yield from ("", f"## {title}", "")
        yield from ("| ratio | goal | measured | min - max | |", "|---|---|---|---|---|")
        yield from rows


def _figures(results: Results, measurement: str) -> Iterator[str]:
    """Yield the table of a measurement: a row per case and competitor, a column per figure."""
    figures = {
        figure: values for figure, values in results.rounds.items() if figure.measurement == measurement
    }
    columns = list(dict.fromkeys(figure.what for figure in figures))
    yield from ("", f"## {measurement.capitalize()}", "")
    if measurement in results.notes:
        yield from (results.notes[measurement], "")
    yield f"| case | who | {' | '.join(columns)} |"
    yield f"|---|---|{'---|' * len(columns)}"
    for case, who in dict.fromkeys((figure.case, figure.who) for figure in figures):
        cells = [_cell(figures.get(Figure(measurement, case, who, what))) for what in columns]
        yield f"| {case} | {who} | {' | '.join(cells)} |"


def _cell(values: list[float] | None) -> str:
    if not values:
        return ""
    median, least, most = spread(values)
    return f"{shown(median)} ({shown(least)} - {shown(most)})" if len(values) > 1 else shown(median)
