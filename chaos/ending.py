"""Reliable cancellation of tasks, and of the whole program."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

_AGAIN_AFTER = 0.1


async def end_tasks(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks repeatedly until they have ended, and ignore their exceptions.

    A single cancellation may not be enough: before Python 3.12, `asyncio.wait_for`, which redis-py uses for
    its commands, can swallow a cancellation that arrives at the moment of its completion.
    """
    unfinished = set(tasks)
    while unfinished:
        for task in unfinished:
            task.cancel()
        _, unfinished = await asyncio.wait(unfinished, timeout=_AGAIN_AFTER)
    await asyncio.gather(*tasks, return_exceptions=True)


def run_to_the_end(
    program: Coroutine[Any, Any, T], run: Callable[[Coroutine[Any, Any, T]], T] = asyncio.run
) -> T:
    """Run a program so that SIGTERM ends it like Ctrl-C, after it has ended its processes.

    Args:
        program: the program.
        run: runs it in an event loop. A program that kills servers needs asyncio's: for a connection that the
            server has just closed, uvloop raises RuntimeError, which redis-py passes on.

    Raises:
        KeyboardInterrupt: SIGTERM or Ctrl-C has ended the program.
    """

    async def until_ended() -> T:
        main = asyncio.current_task()
        if main is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
        return await program

    try:
        return run(until_ended())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
