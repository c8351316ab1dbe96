"""What `--help` says beside the options: prose out of the docstring, and examples, which the tests run."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT = "$ "


def prose(function: Callable[..., Any]) -> str:
    """A docstring with its lines joined, paragraph by paragraph: the terminal has a width of its own."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def examples(*commands: str) -> str:
    """Command lines as the last paragraph of a help text."""
    lines = [f"  [dim]{PROMPT}[/][cyan]{escape(command)}[/]" for command in commands]
    return "\n".join(["[bold]Examples[/]", *lines])
