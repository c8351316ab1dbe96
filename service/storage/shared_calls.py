"""Server calls that several tasks share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

K = TypeVar("K")
V = TypeVar("V")


class SharedCalls(Generic[K, V]):
    """Calls that process items; those that are added during a call share the next one.

    Args:
        call: processes items, given with their keys. It may be called again with items of a failed call.
    """

    def __init__(self, call: Callable[[Mapping[K, V]], Awaitable[None]]) -> None:
        self._call = call
        self._waiting: dict[K, V] = {}
        self._calling = asyncio.Lock()

    async def process(self, items: Mapping[K, V]) -> None:
        """Return when a call has processed these items.

        Raises whatever the call raises. The items of a failed call are part of the next one.
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
