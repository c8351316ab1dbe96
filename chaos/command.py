"""The command: run the bench, show its progress, report the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos import options as command_line
from chaos import report
from chaos.bench import Bench
from chaos.program import carry_out

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench, and return the exit code."""
    return carry_out("chaos", Bench, command_line.parse(arguments), report)
