"""Pools of few connections, for which further calls wait.

redis-py's `BlockingConnectionPool` cannot be used with sentinels. It also loses a place for good when a call
is cancelled twice while it gives its connection back. The pools of this module lose none.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool

AT_ONCE = 8
"""Maximum connections in use. A server runs one command at a time, so more would only wait there."""


class _Limited:
    """A pool of which at most `AT_ONCE` connections are in use."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        most: int = self.max_connections  # type: ignore[attr-defined]  # the pool's; the URL may lower it
        self._places = asyncio.Semaphore(min(AT_ONCE, most))
        self._lent: set[AbstractConnection] = set()
        """Connections with a place. redis-py also releases one that it could not connect, which has none."""

    async def get_connection(self, *arguments: Any, **options: Any) -> AbstractConnection:
        """Return a connected connection: a free one, or a new one if none is free.

        While `AT_ONCE` connections are in use (or fewer, if the URL says so), wait without a limit until one
        is given back.
        """
        await self._places.acquire()
        try:
            connection: AbstractConnection = await super().get_connection(*arguments, **options)  # type: ignore[misc]  # the pool's
        except BaseException:
            self._places.release()
            raise
        self._lent.add(connection)
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Give a connection back, so that the next call that waits can go on."""
        try:
            await super().release(connection)  # type: ignore[misc]  # the pool's
        finally:
            if connection in self._lent:
                self._lent.remove(connection)
                self._places.release()


class LimitedPool(_Limited, ConnectionPool):
    """A pool to one server, of which at most `AT_ONCE` connections are in use."""


class LimitedSentinelPool(_Limited, SentinelConnectionPool):
    """A pool to the master behind sentinels, of which at most `AT_ONCE` connections are in use."""
