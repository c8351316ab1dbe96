"""Test how text of models and producers is printed on a terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from service.cli.output import UNBOUNDED, console, paragraph, plural

if TYPE_CHECKING:
    import pytest


def test_the_console_escapes_all_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape all printed text. Otherwise one forgotten call would let a producer control the terminal."""
    console().print("a\x1b]0;title\u202eb\nnext")
    assert capsys.readouterr().out == "a\\x1b]0;title\\u202eb\nnext\n"


def test_a_paragraph_is_wrapped_on_a_terminal_only() -> None:
    """Wrap text on a terminal only. Otherwise a program that reads the output would get cut lines."""
    text = "word " * 40 + "[bold]no markup[/]\nnext\x1b[0m"
    terminal = Console(file=io.StringIO(), force_terminal=True, width=40, color_system=None)
    terminal.print(paragraph(terminal, text))
    lines = terminal.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 40
    assert all(line.startswith("  ") for line in lines)
    pipe = Console(file=io.StringIO(), width=UNBOUNDED)
    pipe.print(paragraph(pipe, text))
    assert pipe.file.getvalue() == f"  {'word ' * 40}[bold]no markup[/]\n  next\\x1b[0m\n"  # type: ignore[attr-defined]


def test_a_pipe_gets_no_colour(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no colours to a pipe. Otherwise programs would have to strip escape sequences."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    console().print("plain", style="bold red")
    assert capsys.readouterr().out == "plain\n"


def test_plural() -> None:
    """Choose singular or plural by the count."""
    assert [plural(n, "entry", "entries") for n in (0, 1, 1234)] == ["0 entries", "1 entry", "1,234 entries"]
