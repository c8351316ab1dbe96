"""Progress output during a run: one live line on a terminal, else a line from time to time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN_EVERY = 10.0
_LIVE_EVERY = 0.25


async def follow(heading: str, line: Callable[[], str]) -> None:
    """Show a heading, and then the current result of `line` until cancelled."""
    console = Console()
    console.print(heading, highlight=False)
    if not console.is_terminal:
        while True:
            await asyncio.sleep(_PLAIN_EVERY)
            console.print(line(), highlight=False, soft_wrap=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text(line(), no_wrap=True, overflow="ellipsis"), refresh=True)
            await asyncio.sleep(_LIVE_EVERY)
