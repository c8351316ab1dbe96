"""Build the text of `--help`: prose from docstrings, and examples, which the tests run."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT = "$ "


def prose(function: Callable[..., Any]) -> str:
    """Return a docstring with the lines of each paragraph joined, since terminals differ in width."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def examples(*commands: str) -> str:
    """Return command lines, without square brackets, formatted as the last paragraph of a help text."""
    lines = [f"  [dim]{PROMPT}[/][cyan]{command}[/]" for command in commands]
    return "\n".join(["[bold]Examples[/]", *lines])
