"""Test that commands show a bounded part of outside data, however large or nested it is."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from service.cli.entries import entry_in_full, input_of
from service.cli.output import MAX_CHARACTERS, MAX_FACT_TEXT, _SafeConsole, facts, labelled, paragraph

if TYPE_CHECKING:
    from rich.console import RenderableType


def printed(make: RenderableType, *, terminal: bool = True) -> str:
    """Return the output on a terminal of 80 columns, or on a pipe."""
    target = _SafeConsole(file=io.StringIO(), force_terminal=terminal, width=80, no_color=True)
    target.print(make)
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def terminal() -> _SafeConsole:
    """Return a terminal of 80 columns."""
    return _SafeConsole(file=io.StringIO(), force_terminal=True, width=80)


@pytest.mark.parametrize("unit", ["word ", "\x1b", "\U000e0001", "\t", "語"])
def test_a_long_text_is_cut_on_a_terminal(unit: str) -> None:
    """Truncate a text on a terminal. Otherwise a megabyte would take seconds to print."""
    text = (unit * 1_000_000)[:1_000_000]
    shown = printed(paragraph(terminal(), text))
    assert "(980,000 more characters; --json shows all)" in shown
    assert len(shown) < 14 * MAX_CHARACTERS


def test_a_text_of_the_limit_is_shown_whole() -> None:
    """Show a text of exactly the limit without the note about further characters."""
    assert "more characters" not in printed(paragraph(terminal(), "x" * MAX_CHARACTERS))


def test_a_pipe_gets_all() -> None:
    """Write a text to a pipe in full. Otherwise a program that reads it would miss its end."""
    pipe = _SafeConsole(file=io.StringIO(), force_terminal=False, width=10_000)
    assert paragraph(pipe, "x" * 100_000).plain.strip() == "x" * 100_000


def test_facts_are_cut() -> None:
    """Truncate ids and names. Otherwise an id of a megabyte would fill the screen."""
    name = "n" * 1_000_000
    assert len(facts((name, labelled("tenant", name))).plain) < 3 * MAX_FACT_TEXT


def test_an_entry_of_the_input_is_shown_in_part() -> None:
    """Limit the events, types and texts shown of an entry. Otherwise a large array would fill the screen."""
    event = {"type": "t" * 100_000, "delta": "d" * 100_000, "sequence_number": ["s" * 100_000]}
    for body, more in ((json.dumps(event), 0), (json.dumps([{"type": "x"}] * 10_000), 9_900)):
        shown = printed(input_of(terminal(), "1-0", {b"event": body.encode(), b"tenant": b"t" * 100_000}))
        assert len(shown) < 20_000
        assert ("9,900 more events" in shown) is (more > 0)


@pytest.mark.parametrize("value", ["[" * 100_000, "[" * 900 + "]" * 900, "[" + "[1]," * 100_000 + "1]"])
def test_nested_values_of_a_letter(value: str) -> None:
    """Limit the indentation of nested values. Otherwise a kilobyte would become a megabyte or a traceback."""
    shown = printed(entry_in_full(terminal(), json.dumps({"event": value, "n" * 100_000: "x"})))
    assert len(shown) < 3 * MAX_CHARACTERS
