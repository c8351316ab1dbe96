"""Limit the messages in flight: readers wait while the limit is reached."""

from __future__ import annotations

import asyncio
from typing import Final

MESSAGES: Final = 5000
BYTES: Final = 64 * 1024 * 1024


class InFlightLimit:
    """A limit on the number and total size of messages in flight."""

    def __init__(self, messages: int = MESSAGES, size: int = BYTES) -> None:
        self._messages, self._size = messages, size
        self._free = asyncio.Event()
        self._free.set()

    @property
    def full(self) -> bool:
        """Return whether the limit is reached."""
        return not self._free.is_set()

    async def wait(self) -> None:
        """Wait until there is room."""
        await self._free.wait()

    def enter(self, size: int) -> None:
        """Add a message of this size in bytes. Entries already read must be added even beyond the limit."""
        self._change(1, size)

    def leave(self, messages: int, size: int) -> None:
        """Remove this number of messages with this total size in bytes."""
        self._change(-messages, -size)

    def lift(self) -> None:
        """Lift the limit during shutdown, when nothing more is read."""
        self._messages = self._size = 1 << 62
        self._free.set()

    def _change(self, messages: int, size: int) -> None:
        self._messages -= messages
        self._size -= size
        if self._messages > 0 and self._size > 0:
            self._free.set()
        else:
            self._free.clear()
