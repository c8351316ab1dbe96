"""Limit the messages in flight: those accepted and not yet recorded as delivered or given up.

Readers wait while the limit is reached.
"""

from __future__ import annotations

import asyncio
from typing import Final

MESSAGES: Final = 5000
"""Maximum number of messages."""

BYTES: Final = 64 * 1024 * 1024
"""Maximum total size of their alerts."""


class InFlightLimit:
    """A limit on the number and total size of messages in flight."""

    def __init__(self, messages: int = MESSAGES, size: int = BYTES) -> None:
        self._room, self._room_bytes = messages, size
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
        self._room = self._room_bytes = 1 << 62
        self._free.set()

    def _change(self, messages: int, size: int) -> None:
        self._room -= messages
        self._room_bytes -= size
        if self._room > 0 and self._room_bytes > 0:
            self._free.set()
        else:
            self._free.clear()
