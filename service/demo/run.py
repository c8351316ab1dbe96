"""One demo, from the first line to the exit code."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.demo.audience import audience
from service.demo.clock import Clock
from service.demo.progress import Progress
from service.demo.stage import perform
from service.demo.stream import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def run_demo(pace: float) -> int:
    """Run the demo; returns the exit code.

    Raises:
        EmbeddedServerError: there is no server to be had; the message says why, and what to do.
    """
    watcher = audience()
    progress = Progress(load(), watcher.heard)
    clock = Clock(pace)
    told: list[int] = []
    try:
        with _told_to_end(told):
            wrong = perform(progress, clock, watcher)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; the server, the worker and the relay are stopped.\n")
        return 128 + (told or [signal.SIGINT])[0]  # as shells have it
    watcher.conclude(progress, clock, wrong)
    return 1 if wrong else 0


@contextmanager
def _told_to_end(told: list[int]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does, so that what was started is ended; `told` gets which."""

    def end(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        signal.raise_signal(signal.SIGINT)

    # A shell that starts a job in the background has it ignore SIGINT; here it must work.
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: end, signal.SIGHUP: end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
