"""Print results: coloured and wrapped on a terminal, plain into a pipe, and always safe to display.

Text from models and producers passes `visible()` before layout. The console applies it again to all that it
prints, so that no caller can forget it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text

from service.handler_packages import kind_of
from service.visible import shortened, visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import ConsoleOptions, RenderableType
    from rich.table import Table

INDENT = 2
MAX_CHARACTERS = 20_000
"""Maximum characters of a text shown on a terminal; laying out a megabyte takes seconds."""

MAX_FACT_TEXT = 1200
"""Maximum characters of an id, a name or another fact in a line; an id may have 1,024."""

UNBOUNDED = 10_000
"""Width used if the output is not a terminal; the reader wraps lines."""

SEVERITY_STYLES = {"info": "cyan", "warning": "yellow", "critical": "bold white on red"}
STATUS_STYLES = {"completed": "green", "incomplete": "yellow", "failed": "red", "abandoned": "yellow"}
OUTCOME_STYLES = {"delivered": "green", **dict.fromkeys(("refused", "expired", "gone", "unreadable"), "red")}
INTEGRITY_STYLES = {"verified": "green", "repaired": "yellow", "unverified": "dim"}


class _SafeConsole(Console):
    """A console that escapes invisible characters in everything it prints."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield segments with visible text; control codes come from rich only and pass unchanged."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text, keep="\n"), segment.style)


def console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr that interprets no markup, emoji codes or numbers."""
    made = _SafeConsole(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = UNBOUNDED
    return made


def print_table(target: Console, table: Table) -> None:
    """Print a table; into a pipe, without trailing blanks."""
    if target.is_terminal:
        target.print(table)
        return
    with target.capture() as capture:
        target.print(table)
    for line in capture.get().splitlines():
        target.print(line.rstrip())


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: `1 event`, `1,234 events`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def write_json(json: str) -> None:
    """Print a JSON value on a line of its own, and flush."""
    sys.stdout.write(f"{visible_json(json)}\n")
    sys.stdout.flush()


def note(text: str, *, style: str = "yellow") -> None:
    """Print a warning or hint on stderr."""
    console(stderr=True).print(Text(visible(text), style=style))


def facts(values: Iterable[object | None]) -> Text:
    """Return a line of short facts, without None and empty values."""
    known = [value if isinstance(value, Text) else Text(fact(value)) for value in values if value]
    separated = (part for value in known for part in (Text(" · ", style="dim"), value))
    return Text().join(list(separated)[1:])


def fact(value: object) -> str:
    """Return an external value, shortened and safe to display in a line."""
    return visible(shortened(str(value), MAX_FACT_TEXT))


def labelled(name: str, value: str | int | None) -> Text | None:
    """Return a fact with its label; None if the value is None."""
    if value is None:
        return None
    return Text.assemble((f"{name} ", "dim"), fact(value))


def kind_name(name: str) -> Text:
    """Return the name of a kind of text in its style; plain if no installed package knows it."""
    try:
        kind = kind_of(name)
    except Exception:  # noqa: BLE001 - a broken package of a handler must not hide the texts of the others
        kind = None
    return Text(fact(name), style=kind.style if kind else "")


def styled(value: str | None, styles: dict[str, str]) -> Text | None:
    """Return a word in its style; None if the value is None."""
    return None if value is None else Text(fact(value), style=styles.get(value, ""))


def indented(text: Text) -> RenderableType:
    """Return an indented line; continuation lines are indented too."""
    return Padding(text, (0, 0, 0, INDENT), expand=False)


def paragraph(target: Console, text: str, *, style: str = "", indent: int = INDENT) -> Text:
    """Return an indented text; on a terminal it is wrapped, and cut after `MAX_CHARACTERS`."""
    left_out = len(text) - MAX_CHARACTERS if target.is_terminal else 0
    if left_out > 0:
        text = f"{text[:MAX_CHARACTERS]}…\n({left_out:,} more characters; --json shows all)"
    shown = Text(visible(text, keep="\n\t").rstrip("\n"), style=style)
    shown.expand_tabs(4)
    lines = shown.wrap(target, max(20, target.width - indent)) if target.is_terminal else shown.split("\n")
    margin = Text(" " * indent)
    return Text("\n").join(margin + line for line in lines)
