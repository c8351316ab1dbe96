"""Set what a process has only once: its event loop, its signal handlers, its garbage collector.

Only the long-lived sub-commands do this. The apps that they run (`service/apps`) leave the process as it is,
so that several of them can run in one process, such as a test.

- SIGTERM and SIGINT stop the app gracefully. A second signal ends the process at once.
- SIGHUP reloads, or stops if there is nothing to reload or the terminal was closed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_STDIN = 0


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in a new event loop: uvloop if it is installed."""
    try:
        import uvloop
    except ImportError:  # not available on Windows
        asyncio.run(main)
    else:
        uvloop.run(main)


def stop_on_signals(stop: Callable[[], object]) -> None:
    """Call `stop` at the first SIGTERM or SIGINT, and end the process at once at the second.

    Call this inside an event loop. Other workers take over the entries of a worker that ends at once.
    """
    received: list[int] = []

    def on_signal(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


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
            signal.raise_signal(signal.SIGTERM)
        else:
            reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)


def collect_garbage_rarely() -> None:
    """Make the garbage collector run rarely, and only on new objects.

    A batch creates some ten thousand objects without reference cycles. Searching them for cycles every 700
    objects, and all imported objects now and then, took as long as all other work.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
