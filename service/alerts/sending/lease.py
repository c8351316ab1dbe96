"""The right to send to a destination. One process has it at a time: so order, grouping and rates are exact.

Whoever holds it renews it in good time, and knows by its own clock until when it is surely its own: a process
that was stopped for a while finds out by itself, before it sends anything.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service import logs
from service.ports.storage import StorageUnavailableError

if TYPE_CHECKING:
    from service.ports.outbox import LeaseStore


class Lease:
    """One destination's lease, as one process sees it.

    Args:
        store: where it is kept.
        seconds: how long it lasts after it was taken, or renewed.
    """

    def __init__(self, store: LeaseStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._surely_until = 0.0

    @property
    def held(self) -> bool:
        """Whether it is surely this process's."""
        return asyncio.get_running_loop().time() < self._surely_until

    async def take(self) -> bool:
        """Take it, or renew it; whether that worked. `StorageUnavailableError` if nobody can say."""
        asked_at = asyncio.get_running_loop().time()
        if not await self._store.hold(round(self._seconds * 1000)):
            self._surely_until = 0.0
            return False
        self._surely_until = asked_at + self._seconds
        return True

    async def keep(self) -> None:
        """Renew it again and again; come back when it is lost."""
        while self.held:
            await asyncio.sleep(self._seconds / 4)
            try:
                if not await self.take():
                    return
            except StorageUnavailableError as error:
                logs.logger().debug("lease not renewed", error=str(error))

    async def release(self) -> None:
        """Let go of it, so that another one can have it at once; `StorageUnavailableError` as `take`."""
        self._surely_until = 0.0
        await self._store.release()
