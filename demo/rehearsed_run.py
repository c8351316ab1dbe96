"""Run the demo from the first line to the exit code."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from demo.audience import audience
from demo.clock import Clock
from demo.progress import Progress
from demo.stage import perform
from demo.stream import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def run_demo(pace: float, *, through_tap: bool = False, shows_console: bool = False) -> int:
    """Run the demo, and return the exit code. With a tap, the translated streams pass through it.

    Raises:
        EmbeddedServerError: no server can be started; the message has the reason and the remedy.
    """
    watcher = audience()
    progress = Progress(load(), watcher.heard)
    clock = Clock(pace)
    received: list[int] = []
    try:
        with _unwinding_on_signals(received):
            wrong = perform(progress, clock, watcher, through_tap=through_tap, shows_console=shows_console)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; the server, the worker and the relay are stopped.\n")
        return 128 + (received or [signal.SIGINT])[0]  # the convention of shells
    watcher.conclude(progress, clock, wrong)
    return 1 if wrong else 0


@contextmanager
def _unwinding_on_signals(received: list[int]) -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind like Ctrl-C, so that child processes end; record the signal."""

    def end(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    # A shell makes background jobs ignore SIGINT; restore it, since the handlers raise it.
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: end, signal.SIGHUP: end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
