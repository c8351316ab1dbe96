"""Ending of tasks and steps that use redis-py, where a cancellation may be lost.

A cancellation is lost if it comes in the moment in which redis-py has connected or sent: in Python 3.11,
`asyncio.wait_for` then returns the result. So `asyncio.timeout`, which cancels once, is no limit for a step
that redis-py tries again and again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

_AGAIN_AFTER = 0.1
"""Seconds between two cancellations of a task."""


async def cancelled(*tasks: asyncio.Task[Any], again_after: float = _AGAIN_AFTER) -> None:
    """Cancel tasks, as often as it takes, and return when they have ended.

    Args:
        tasks: some may have ended.
        again_after: seconds that they have to give back their connections, before they are cancelled again.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=again_after)


async def done_within(seconds: float, step: Coroutine[Any, Any, Any]) -> bool:
    """Take a step, and give it up after so many seconds; return whether it was done.

    Raises:
        Exception: the step's.
    """
    task = asyncio.create_task(step)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        await cancelled(task)
    if task.cancelled():
        return False
    task.result()
    return True
