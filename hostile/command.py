"""The command: run the bench, show its progress, report the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvloop

from chaos.program import carry_out
from hostile import options as command_line
from hostile import report
from hostile.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench, and return the exit code."""
    return carry_out("hostile", Bench, command_line.parse(arguments), report, uvloop.run)
