"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

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
