"""Reports of a run: progress and tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mutation.sample import GOALS, language_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mutation.sabotage import Sabotage
    from mutation.trial import Result


_WIDE: Final = 160


def console_for_results() -> Console:
    """Return a console that is wide enough for all names if the output is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


class Progress:
    """A progress display with one line per change."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0

    def __call__(self, result: Result) -> None:
        """Print a result."""
        self._done += 1
        word, style = ("killed", "green") if result.killed else ("SURVIVED", "bold red")
        line = Text(f"{self._done:>4}/{self._total}  ")
        line.append(f"{word:<9}", style)
        line.append(f"{result.outcome.seconds:5.0f} s  {result.change.place(result.source)}  ")
        line.append(f"{result.change.rule}  ", "cyan")
        line.append(result.outcome.test or ("" if not result.killed else "no end in time"), "dim")
        self._console.print(line, soft_wrap=True, highlight=False)


def show_sample(console: Console, results: Sequence[Result], seed: str) -> bool:
    """Print the table and the survivors; return whether the goals are met."""
    for result in results:
        if not result.killed:
            console.rule(Text(f"survived: {result.change.place(result.source)} ({result.change.rule})"))
            console.print(Text(result.change.diff(result.source)), highlight=False)
    table = Table("folder", "language", title=f"seed {seed}")
    for column in ("mutants", "killed", "survived", "share"):
        table.add_column(column, justify="right")
    for (folder, language), some in sorted(_by_folder(results).items()):
        table.add_row(folder, language, *_numbers(some))
    is_met = True
    for language, goal in GOALS.items():
        some = [result for result in results if language_of(result.change.file) == language]
        if some:
            is_met = is_met and _share(some) >= goal
            table.add_section()
            table.add_row("all", language, *_numbers(some), style="bold")
    console.print(table)
    goals = ", ".join(f"{goal:.0%} in {language}" for language, goal in GOALS.items())
    console.print(f"goal: {goals}: {'met' if is_met else 'not met'}", highlight=False)
    return is_met


def _by_folder(results: Sequence[Result]) -> Mapping[tuple[str, str], list[Result]]:
    folders: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        file = PurePosixPath(result.change.file)
        folders[file.parent.as_posix(), language_of(result.change.file)].append(result)
    return folders


def _share(results: Sequence[Result]) -> float:
    return sum(result.killed for result in results) / len(results)


def _numbers(results: Sequence[Result]) -> tuple[str, str, str, str]:
    killed = sum(result.killed for result in results)
    return str(len(results)), str(killed), str(len(results) - killed), f"{_share(results):.1%}"


def show_sabotages(console: Console, sabotages: Sequence[Sabotage], results: Sequence[Result]) -> bool:
    """Print the table; return whether all sabotages were noticed."""
    table = Table("sabotage", "breaks")
    table.add_column("noticed by", overflow="fold")
    for sabotage, result in zip(sabotages, results, strict=True):
        by = result.outcome.test or "no end in time"
        noticed = (
            Text(by if result.by_first else f"{by} (not one of its own tests)") if result.killed else None
        )
        table.add_row(sabotage.name, sabotage.breaks, noticed or Text("nobody", "bold red"))
    console.print(table)
    noticed_all = all(result.killed for result in results)
    console.print(f"{sum(result.killed for result in results)} of {len(results)} noticed", highlight=False)
    return noticed_all


def write(path: Path, results: Sequence[Result], **about: object) -> None:
    """Write the results as JSON."""
    rows = [
        {
            "place": result.change.place(result.source),
            "rule": result.change.rule,
            "diff": result.change.diff(result.source),
            "killed": result.killed,
            "by": result.outcome.test,
            "seconds": round(result.outcome.seconds, 1),
        }
        for result in results
    ]
    path.write_text(json.dumps({**about, "results": rows}, indent=1, ensure_ascii=False) + "\n", "utf-8")
