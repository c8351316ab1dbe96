"""How much may be in hand at once: whoever reads waits while it is full."""

from __future__ import annotations

import asyncio
from typing import Final

MESSAGES: Final = 5000
BYTES: Final = 64 * 1024 * 1024


class Room:
    """Counts what is in hand, by number and by size."""

    def __init__(self, messages: int = MESSAGES, size: int = BYTES) -> None:
        self._messages, self._size = messages, size
        self._free = asyncio.Event()
        self._free.set()

    @property
    def full(self) -> bool:
        """Whether there is none."""
        return not self._free.is_set()

    async def wait(self) -> None:
        """Come back when there is room."""
        await self._free.wait()

    def enter(self, size: int) -> None:
        """One more is in hand: what was read has to be taken, even beyond what there is room for."""
        self._change(1, size)

    def leave(self, messages: int, size: int) -> None:
        """So much is in hand no more."""
        self._change(-messages, -size)

    def open(self) -> None:
        """Let everybody through: nothing is read any more."""
        self._messages = self._size = 1 << 62
        self._free.set()

    def _change(self, messages: int, size: int) -> None:
        self._messages -= messages
        self._size -= size
        if self._messages > 0 and self._size > 0:
            self._free.set()
        else:
            self._free.clear()
