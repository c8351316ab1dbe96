"""How the command writes: to people in colour and wrapped, to pipes plain, and never what a model chose.

What models and producers wrote passes `visible()` before it is laid out. The console does so once more with
all that it prints, so that nothing can be forgotten.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text

from service.visible import shortened, visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import ConsoleOptions, RenderableType
    from rich.table import Table

INDENT = 2
MOST_CHARACTERS = 20_000
"""Characters of a text that a terminal is shown: laying out a megabyte takes seconds."""

MOST_OF_A_FACT = 1200
"""Characters of an id, a name or another fact in a line; an id may have 1,024."""

UNBOUNDED = 10_000
"""The width of what is not a terminal: whoever reads it wraps it as they like."""

SEVERITY_STYLES = {"info": "cyan", "warning": "yellow", "critical": "bold white on red"}
STATUS_STYLES = {"completed": "green", "incomplete": "yellow", "failed": "red", "abandoned": "yellow"}
INTEGRITY_STYLES = {"verified": "green", "repaired": "yellow", "unverified": "dim"}
KIND_STYLES = {"refusal": "bold red", "reasoning": "bold blue", "reasoning_summary": "bold cyan"}


class _SafeConsole(Console):
    """A console that never prints what a reader cannot see, whoever made the text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render to segments. Control codes are those of rich itself."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text, keep="\n"), segment.style)


def console(*, stderr: bool = False) -> Console:
    """A console of stdout or stderr. Nothing is taken for markup, an emoji code or a number to colour."""
    made = _SafeConsole(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = UNBOUNDED
    return made


def print_table(target: Console, table: Table) -> None:
    """A table; without the blanks at the ends of its lines if it goes to a pipe."""
    if target.is_terminal:
        target.print(table)
        return
    with target.capture() as capture:
        target.print(table)
    for line in capture.get().splitlines():
        target.print(line.rstrip())


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 event`, `1,234 events`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def write_json(json: str) -> None:
    """One JSON value on a line of its own, at once."""
    sys.stdout.write(f"{visible_json(json)}\n")
    sys.stdout.flush()


def note(text: str, *, style: str = "yellow") -> None:
    """A line beside the result: a warning, or a hint."""
    console(stderr=True).print(Text(visible(text), style=style))


def facts(values: Iterable[object | None]) -> Text:
    """A line of short facts; those that are not known are left out."""
    known = [value if isinstance(value, Text) else Text(fact(value)) for value in values if value]
    separated = (part for value in known for part in (Text(" · ", style="dim"), value))
    return Text().join(list(separated)[1:])


def fact(value: object) -> str:
    """Return a value from outside as it may stand in a line."""
    return visible(shortened(str(value), MOST_OF_A_FACT))


def labelled(name: str, value: str | int | None) -> Text | None:
    """A fact with its name; None if it is not known."""
    if value is None:
        return None
    return Text.assemble((f"{name} ", "dim"), fact(value))


def styled(value: str | None, styles: dict[str, str]) -> Text | None:
    """A word in the style that belongs to it."""
    return None if value is None else Text(fact(value), style=styles.get(value, ""))


def indented(text: Text) -> RenderableType:
    """A line below a title; if it is wrapped, all of it is indented."""
    return Padding(text, (0, 0, 0, INDENT), expand=False)


def paragraph(target: Console, text: str, *, style: str = "", indent: int = INDENT) -> Text:
    """A text in lines, indented; wrapped, and cut if it is very long, if it goes to a terminal."""
    left_out = len(text) - MOST_CHARACTERS if target.is_terminal else 0
    if left_out > 0:
        text = f"{text[:MOST_CHARACTERS]}…\n({left_out:,} more characters; --json shows all)"
    shown = Text(visible(text, keep="\n\t").rstrip("\n"), style=style)
    shown.expand_tabs(4)
    lines = shown.wrap(target, max(20, target.width - indent)) if target.is_terminal else shown.split("\n")
    margin = Text(" " * indent)
    return Text("\n").join(margin + line for line in lines)
