"""Server calls that several tasks share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

K = TypeVar("K")
V = TypeVar("V")


class SharedCalls(Generic[K, V]):
    """Processes items by one call at a time. Items that are added during a call share the next one.

    Of two waiting items with the same key, the call gets only the later one.

    Args:
        call: processes items, given by their keys. It may get the items of a failed call again.
    """

    def __init__(self, call: Callable[[Mapping[K, V]], Awaitable[None]]) -> None:
        self._call = call
        self._waiting: dict[K, V] = {}
        self._calling = asyncio.Lock()

    async def process(self, items: Mapping[K, V]) -> None:
        """Process these items, in a call of this task or of another one; return when that is done.

        If a call fails or is cancelled, only the task that made it gets the error. The next call of any task
        also gets the items of the failed one, even if their own task does not try again.
        """
        self._waiting |= items
        async with self._calling:
            if self._waiting.keys().isdisjoint(items):
                return  # another task's call has processed them
            sent, self._waiting = self._waiting, {}
            try:
                await self._call(sent)
            except BaseException:
                self._waiting = sent | self._waiting
                raise
