"""Show a run to its audience: a person at a terminal, or a program that reads lines."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from demo.phrases import words
from demo.summary import as_lines, as_tables, summarised
from demo.view import LEAST_HEIGHT, LEAST_WIDTH, picture
from service.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from rich.layout import Layout

    from demo.clock import Clock
    from demo.progress import Happening, Progress

_FRAMES_PER_SECOND = 10
ALL_WELL = "Everything came out as it should."
NOT_WELL = "Not everything came out as it should:"


class Audience(Protocol):
    """A display of a run."""

    @property
    def lingers(self) -> float:
        """Return the seconds for which the end stays in view."""
        ...

    def heard(self, happening: Happening) -> None:
        """Show a happening."""
        ...

    async def watch(self, progress: Progress, clock: Clock) -> None:
        """Show the progress until cancelled."""
        ...

    def conclude(self, progress: Progress, clock: Clock, wrong: Sequence[str]) -> None:
        """Show the summary, and what went wrong."""
        ...


class Reader:
    """A display of plain lines without control codes: one per happening, then the summary."""

    lingers = 0.0

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def heard(self, happening: Happening) -> None:
        """Write one line."""
        said = words(happening)
        line = f"{happening.at:6.1f} s  {happening.stream:<12} {said.label:<14} {said.detail}"
        self._say(line.rstrip())

    async def watch(self, progress: Progress, clock: Clock) -> None:  # noqa: ARG002 - `heard` shows everything
        """Wait until cancelled; `heard` writes the lines."""
        await asyncio.get_running_loop().create_future()

    def conclude(self, progress: Progress, clock: Clock, wrong: Sequence[str]) -> None:  # noqa: ARG002 - nothing to draw
        """Write the summary."""
        if progress.entries:
            for line in ["", *as_lines(summarised(progress)), ""]:
                self._say(line)
        for line in _conclusion(wrong):
            self._say(line)

    def _say(self, line: str) -> None:
        self._out.write(visible(line, keep="\n") + "\n")
        self._out.flush()


class Spectator:
    """A live display of growing texts."""

    lingers = 1.2

    def __init__(self, console: Console) -> None:
        self._console = console

    def heard(self, happening: Happening) -> None:
        """Do nothing; the next frame shows it."""

    async def watch(self, progress: Progress, clock: Clock) -> None:
        """Draw frames until cancelled."""
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(self._picture(progress, clock), refresh=True)
                await asyncio.sleep(1 / _FRAMES_PER_SECOND)

    def conclude(self, progress: Progress, clock: Clock, wrong: Sequence[str]) -> None:
        """Print the last frame, and the summary below it."""
        console = self._console
        if progress.entries:
            console.print(self._picture(progress, clock), height=console.height)
            console.print()
            console.print(as_tables(summarised(progress), console.width))
            console.print()
        first, *rest = _conclusion(wrong)
        console.print(Text(visible(first), "bold red" if wrong else "bold green"))
        for line in rest:
            console.print(Text(visible(line, keep="\n")), soft_wrap=True)

    def _picture(self, progress: Progress, clock: Clock) -> Layout:
        return picture(progress, clock.now, self._console.width, self._console.height)


def _conclusion(wrong: Sequence[str]) -> list[str]:
    return [NOT_WELL, *wrong] if wrong else [ALL_WELL]


def audience() -> Audience:
    """Return a spectator if standard output is a terminal that can show the view, else a reader."""
    out = sys.stdout
    if out.isatty():
        console = Console()
        roomy = console.width >= LEAST_WIDTH and console.height >= LEAST_HEIGHT
        if roomy and not console.is_dumb_terminal and console.encoding.startswith("utf"):
            return Spectator(console)
    return Reader(out)
