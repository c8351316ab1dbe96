"""What models and producers wrote, on a terminal."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from service.cli.output import UNBOUNDED, console, paragraph, plural, visible, visible_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Zürich 日本 👩‍👧", "plain, Zürich 日本 👩‍👧"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\ud83d", "\\ud83d"),
        ("\u2028", "\\u2028"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    """A model's words could hide, move or retitle what a terminal shows."""
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    """One control character that was forgotten is enough."""
    shown = visible(text)
    assert {unicodedata.category(character) for character in shown}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    assert "\u202e" not in shown


@given(st.text(st.characters()))
def test_json_says_the_same(text: str) -> None:
    """What `--json` prints would be another value, or would steer the terminal it is looked at on."""
    written = visible_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(written) == text
    assert {unicodedata.category(character) for character in written}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})


def test_a_paragraph_is_wrapped_on_a_terminal_only() -> None:
    """A long text would run off the terminal, or would be cut into lines for a program that reads it."""
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
    """Programs that read the output would have to strip escape sequences."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    console().print("plain", style="bold red")
    assert capsys.readouterr().out == "plain\n"


def test_plural() -> None:
    """Sentences would be ungrammatical."""
    assert [plural(n, "entry", "entries") for n in (0, 1, 1234)] == ["0 entries", "1 entry", "1,234 entries"]
