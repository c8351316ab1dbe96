"""The event loop that the long-running sub-commands run in: uvloop, where it is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end."""
    try:
        import uvloop
    except ImportError:  # it is not there on Windows
        asyncio.run(main)
    else:
        uvloop.run(main)
