"""SIGHUP: to a program without a terminal it says "read your file again", else that the terminal is gone."""

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
    """Tell this process to stop, as an operator does."""
    signal.raise_signal(signal.SIGTERM)


def on_hangup(reload: Callable[[], None] | None) -> None:
    """In an event loop: on SIGHUP reload; stop if there is nothing to reload, or the terminal is gone."""
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
