"""A lease in Redis: a key that expires, with the name of its holder as value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.storage import scripts
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from redis.asyncio import Redis


class KeyLease:
    """A lease in Redis; implements `service.ports.outbox.LeaseStore`.

    Its methods raise `StorageUnavailableError` if the server is unavailable.

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
        """Acquire the lease if it is free, or extend it if this process holds it.

        Either way, it expires `ttl_ms` from now. Return whether this process holds it now.
        """
        with unavailable_if_away():
            return bool(await self._acquire(keys=[self._key], args=[self._owner, ttl_ms]))

    async def release(self) -> None:
        """Release the lease, if this process holds it."""
        with unavailable_if_away():
            await self._release(keys=[self._key], args=[self._owner])
