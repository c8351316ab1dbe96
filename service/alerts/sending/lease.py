"""The exclusive right to send to a destination, which makes order, grouping and rate limits exact.

The holder renews its lease early, and knows by its own clock until when the lease is certainly valid. So a
process that was suspended for a while notices the loss by itself, before it sends anything.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service import logs
from service.ports.storage import StorageUnavailableError

if TYPE_CHECKING:
    from service.ports.outbox import LeaseStore


class Lease:
    """A destination's lease, as seen by one process.

    Args:
        store: storage of the lease.
        seconds: lifetime of the lease after it was acquired or renewed.
    """

    def __init__(self, store: LeaseStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._valid_until = 0.0

    @property
    def held(self) -> bool:
        """Return whether this process can prove that it still holds the lease."""
        return asyncio.get_running_loop().time() < self._valid_until

    async def acquire(self) -> bool:
        """Acquire or renew the lease. Return whether this process holds it.

        Raises:
            StorageUnavailableError: the storage cannot be reached.
        """
        asked_at = asyncio.get_running_loop().time()
        if not await self._store.acquire(round(self._seconds * 1000)):
            self._valid_until = 0.0
            return False
        self._valid_until = asked_at + self._seconds
        return True

    async def keep(self) -> None:
        """Renew the lease regularly; return when it is lost."""
        while self.held:
            await asyncio.sleep(self._seconds / 4)
            try:
                if not await self.acquire():
                    return
            except StorageUnavailableError as error:
                logs.logger().debug("lease not renewed", error=str(error))

    async def release(self) -> None:
        """Release the lease, so that another process can acquire it at once.

        Raises:
            StorageUnavailableError: the storage cannot be reached.
        """
        self._valid_until = 0.0
        await self._store.release()
