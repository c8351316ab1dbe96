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
from bench.results import Figure, Spread, shown, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bench.ground import Ground
    from bench.options import Options
    from bench.quantity import Quantity
    from bench.results import Results

VOID = "void"
"""Word for figures of runs that did not go as they had to."""
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
        "goals": [_quantity_as_dict(results, each) for each in GOALS if each.measured(results)],
        "ratios": [_quantity_as_dict(results, each) for each in BESIDES if each.measured(results)],
        "figures": [
            {**figure._asdict(), **_spread_as_dict(results.values(figure)), "rounds": rounds}
            for figure, rounds in results.rounds.items()
        ],
        "curves": results.curves,
        "notes": results.notes,
        "wrong": results.wrong,
    }


def _quantity_as_dict(results: Results, quantity: Quantity) -> dict[str, Any]:
    values = quantity.values(results)
    described: dict[str, Any] = {"what": quantity.says, **_spread_as_dict(values), "rounds": values}
    if quantity.goal:
        described |= {
            "goal": quantity.goal,
            "reached": quantity.reached(spread(values).median) if values else None,
        }
    floor = quantity.floor(results) if values else None
    return described if floor is None else {**described, "floor": floor._asdict()}


def _spread_as_dict(values: list[float]) -> dict[str, float | None]:
    """Return the statistics by name, each None if all values are void."""
    return spread(values)._asdict() if values else dict.fromkeys(Spread._fields)


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
    yield from _quantities(results, "Goals", GOALS)
    yield from _quantities(results, "Ratios besides", BESIDES)
    for measurement in dict.fromkeys(figure.measurement for figure in results.rounds):
        yield from _figures(results, measurement)
    yield ""
    yield "## Who is who"
    yield ""
    yield from (f"- *{each.name}*: {each.says}" for each in ALL)


def _quantities(results: Results, title: str, quantities: Iterable[Quantity]) -> Iterator[str]:
    rows = [_row(results, quantity) for quantity in quantities if quantity.measured(results)]
    if rows:
        yield from ("", f"## {title}", "")
        yield from ("| ratio or figure | goal | measured | min - max | |", "|---|---|---|---|---|")
        yield from rows


def _row(results: Results, quantity: Quantity) -> str:
    values = quantity.values(results)
    cells = (quantity.says, quantity.goal, VOID, "", "")
    if values:
        median, least, most = spread(values)
        remarks = [] if not quantity.goal else ["reached" if quantity.reached(median) else "**missed**"]
        floor = quantity.floor(results)
        if floor is not None:
            remarks.append(
                f"a client of zero cost: {shown(floor.ratio)} (the server takes {shown(floor.ours)} µs "
                f"an event, for the bare drain {shown(floor.bare)})"
            )
        span = f"{shown(least)} - {shown(most)}"
        cells = (quantity.says, quantity.goal, shown(median), span, "; ".join(remarks))
    return f"| {' | '.join(cells)} |"


def _figures(results: Results, measurement: str) -> Iterator[str]:
    """Yield the table of a measurement: a row per case and competitor, a column per figure."""
    figures = {
        figure: rounds for figure, rounds in results.rounds.items() if figure.measurement == measurement
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


def _cell(rounds: list[float | None] | None) -> str:
    """Return median, minimum and maximum of a figure, and the number of rounds that are void."""
    if not rounds:
        return ""
    values = [value for value in rounds if value is not None]
    if not values:
        return VOID
    median, least, most = spread(values)
    text = f"{shown(median)} ({shown(least)} - {shown(most)})" if len(rounds) > 1 else shown(median)
    return text if len(values) == len(rounds) else f"{text}, {len(rounds) - len(values)} {VOID}"
