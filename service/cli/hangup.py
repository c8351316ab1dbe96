"""Handle SIGHUP: reload if the process has no terminal, stop if its terminal was closed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STDIN = 0


def stop() -> None:
    """Stop this process as an operator would, by SIGTERM."""
    signal.raise_signal(signal.SIGTERM)


def on_hangup(reload: Callable[[], None] | None) -> None:
    """Install a SIGHUP handler that reloads, or stops if `reload` is None or the terminal was closed.

    Call this inside an event loop. It does nothing on Windows.
    """
    if sys.platform == "win32":
        return
    had_terminal = os.isatty(_STDIN)

    def hung_up() -> None:
        terminal_is_gone = had_terminal and not os.isatty(_STDIN)
        if reload is None or terminal_is_gone:
            stop()
        else:
            reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)
