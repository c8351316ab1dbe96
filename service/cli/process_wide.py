"""Set what a process has only once: its event loop, its signal handlers, its garbage collector.

Only the long-lived sub-commands do this. The apps that they run (`service/apps`) leave the process as it is,
so that several of them can run in one process, such as a test.

- SIGTERM and SIGINT stop the app gracefully. A second signal ends the process at once.
- SIGHUP reloads the files that can change, or stops the app if the terminal was closed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from service.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in a new event loop: uvloop if it is installed."""
    from service import logs

    try:
        try:
            import uvloop
        except ImportError:  # not available on Windows
            asyncio.run(main)
        else:
            uvloop.run(main)
    finally:
        logs.finish()


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


def on_hangup(*reloads: Callable[[], None]) -> None:
    """Install a SIGHUP handler that calls `reloads`, or stops the app if the terminal was closed.

    Call this inside an event loop. It does nothing on Windows.
    """
    if sys.platform == "win32":
        return
    terminal = Terminal()

    def hung_up() -> None:
        if terminal.is_closed:
            signal.raise_signal(signal.SIGTERM)
            return
        for reload in reloads:
            reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)


@contextmanager
def lean_imports() -> Iterator[None]:
    """Let the modules that the block imports cost less.

    The garbage collector is suspended, and afterwards ignores the objects that exist, since almost all of
    them stay. Otherwise it would search them repeatedly, for a tenth of a worker's start time.

    OpenTelemetry is hidden: redis-py and FastStream would import it if it is installed, whether or not this
    process sends traces.
    """
    hidden = "opentelemetry" not in sys.modules
    gc.disable()
    if hidden:
        sys.modules["opentelemetry"] = None  # type: ignore[assignment] # as the import system documents: not found
    try:
        yield
    finally:
        if hidden:
            del sys.modules["opentelemetry"]
        gc.freeze()
        gc.enable()


def collect_garbage_rarely() -> None:
    """Make the garbage collector run rarely, and only on new objects.

    A batch creates some ten thousand objects without reference cycles. Searching them for cycles every 700
    objects, and all imported objects now and then, took as long as all other work.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def allow_open_files(count: int) -> None:
    """Raise the soft limit of open files to `count`, as far as the hard limit allows.

    The soft limit is often 1,024, since programs with select() cannot use more.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # the system may have a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
