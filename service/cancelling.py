"""Reliable cancellation of tasks and steps that use redis-py, which can lose a cancellation.

A cancellation is lost if it comes at the moment when redis-py has connected or sent: in Python 3.11,
`asyncio.wait_for` then returns the result. So `asyncio.timeout`, which cancels once, does not limit a step
that redis-py retries.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

_AGAIN_AFTER = 0.1
"""Seconds between two cancellations of a task."""


async def cancel(*tasks: asyncio.Task[Any], again_after: float = _AGAIN_AFTER) -> None:
    """Cancel tasks repeatedly until they have ended.

    Args:
        tasks: the tasks to cancel; some may have ended before.
        again_after: seconds for the tasks to release their connections, before they are cancelled again.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=again_after)


async def done_within(seconds: float, step: Coroutine[Any, Any, Any]) -> bool:
    """Run a step and cancel it after `seconds`; return whether it was completed.

    Raises:
        Exception: the exception of the step.
    """
    task = await _ended_within(seconds, step)
    if task.cancelled():
        return False
    task.result()
    return True


async def result_within(seconds: float, step: Coroutine[Any, Any, T]) -> T | None:
    """Run a step and cancel it after `seconds`; return its result, or None if it was not completed.

    Raises:
        Exception: the exception of the step.
    """
    task = await _ended_within(seconds, step)
    return None if task.cancelled() else task.result()


async def _ended_within(seconds: float, step: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run a step in a task and cancel it after `seconds`; return the ended task."""
    task = asyncio.create_task(step)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        await cancel(task)
    return task
