"""Run long-lived sub-commands in an event loop: uvloop if it is installed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in a new event loop."""
    try:
        import uvloop
    except ImportError:  # not available on Windows
        asyncio.run(main)
    else:
        uvloop.run(main)
