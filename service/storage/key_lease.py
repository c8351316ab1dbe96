"""A lease in Redis: a key that expires, with the name of its holder as value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.storage import scripts
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from redis.asyncio import Redis


class KeyLease:
    """Implementation of `service.ports.outbox.LeaseStore` in Redis.

    Args:
        client: client of the server.
        key: key of the lease.
        owner: unique name of this process.
    """

    def __init__(self, client: Redis, key: str, owner: str) -> None:
        self._key = key
        self._owner = owner
        self._acquire = scripts.Script(client, "acquire")
        self._release = scripts.Script(client, "release")

    async def acquire(self, ttl_ms: int) -> bool:
        """Acquire the lease or, if this process holds it, extend it to `ttl_ms` from now.

        Return whether this process holds it now.
        """
        with unavailable_if_away():
            return bool(await self._acquire(keys=[self._key], args=[self._owner, ttl_ms]))

    async def release(self) -> None:
        """Release the lease, if this process holds it."""
        with unavailable_if_away():
            await self._release(keys=[self._key], args=[self._owner])
