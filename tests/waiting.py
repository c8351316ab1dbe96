"""Waiting for another task, process or server."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@overload
async def wait_until(
    condition: Callable[[], Awaitable[T]], timeout: float = ..., *, message: str = ..., interval: float = ...
) -> T: ...


@overload
async def wait_until(
    condition: Callable[[], T], timeout: float = ..., *, message: str = ..., interval: float = ...
) -> T: ...


async def wait_until(
    condition: Callable[[], T | Awaitable[T]],
    timeout: float = 30,
    *,
    message: str = "",
    interval: float = 0.02,
) -> T:
    """Call `condition` (plain or async) repeatedly until its result is true, and return the result.

    Such a test takes no longer than necessary, and its failure names the missing condition, unlike a sleep.

    Raises:
        AssertionError: the condition was not true within `timeout` seconds.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    while True:
        answer = condition()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if clock() > deadline:
            what = message or getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"not within {timeout:g} s: {what} (last answer: {value!r})")
        await asyncio.sleep(interval)
