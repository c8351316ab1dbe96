"""Ending tasks, and the whole program, for certain."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

_AGAIN_AFTER = 0.1


async def end_tasks(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks until they have ended; what they raise is theirs.

    Once may not be enough: before Python 3.12 `asyncio.wait_for`, which redis-py sends its commands by, can
    swallow a cancellation that comes in the moment in which it is done.
    """
    unfinished = set(tasks)
    while unfinished:
        for task in unfinished:
            task.cancel()
        _, unfinished = await asyncio.wait(unfinished, timeout=_AGAIN_AFTER)
    await asyncio.gather(*tasks, return_exceptions=True)


def run_to_the_end(program: Coroutine[Any, Any, T]) -> T:
    """Run a program such that SIGTERM ends it as Ctrl-C does: it ends its processes first.

    Raises:
        KeyboardInterrupt: it was told to end.
    """

    async def until_told() -> T:
        main = asyncio.current_task()
        if main is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
        return await program

    try:
        return asyncio.run(until_told())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
