"""Combine the undelivered alerts of all partitions; ids are those that the command shows."""

from __future__ import annotations

import heapq
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from service.cli.partitions import located, qualified
from service.storage.redis_outbox import RedisOutbox, backlogs
from service.storage.undelivered_store import StoredUndelivered, Undelivered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions, StreamNames
    from service.ports.deployment_figures import BacklogFigures


@asynccontextmanager
async def connect_undelivered() -> AsyncIterator[AllUndelivered]:
    """Connect to the server of the settings, and yield its undelivered alerts."""
    from service.cli.connect import connect, read_settings

    settings = read_settings()
    async with connect(settings) as client:
        yield AllUndelivered(client, settings.names)


class AllUndelivered:
    """The undelivered alerts of all partitions; see `Undelivered` for one partition."""

    def __init__(self, client: Redis, partitions: Partitions) -> None:
        self._client = client
        self._partitions = partitions
        self._of = {names: Undelivered(client, names) for names in partitions.all}

    async def count(self) -> int:
        """Return the number of undelivered alerts."""
        return sum([await alerts.count() for alerts in self._of.values()])

    async def backlogs(self, destination: str | None) -> dict[str, BacklogFigures]:
        """Return the alerts that still wait for one destination or (None) for each."""
        found = await backlogs(self._client, [names.alerts for names in self._partitions.all])
        return {name: each for name, each in found.items() if destination in (None, name)}

    async def newest(self, limit: int, destination: str | None) -> list[StoredUndelivered]:
        """Return the newest alerts, up to `limit`, of one destination or (None) of all."""
        newest: list[StoredUndelivered] = []
        for names, alerts in self._of.items():
            found: list[StoredUndelivered] = []
            async for stored in alerts.newest_first():
                if destination in (None, stored.undelivered.destination):
                    found.append(_shown(names, stored))
                if len(found) == limit:
                    break
            newest += found
        return heapq.nlargest(limit, newest, key=lambda stored: stored.undelivered.failed_at)

    async def oldest_first(self, destination: str | None) -> AsyncIterator[StoredUndelivered]:
        """Yield the present alerts, partition by partition, of one destination or (None) of all."""
        for names, alerts in self._of.items():
            async for stored in alerts.oldest_first():
                if destination in (None, stored.undelivered.destination):
                    yield _shown(names, stored)

    async def get(self, shown_id: str) -> StoredUndelivered | None:
        """Return an alert by its shown id; None if it does not exist."""
        names, entry_id = located(self._partitions, shown_id)
        stored = await self._of[names].get(entry_id)
        return stored and _shown(names, stored)

    async def disabled_answer(self, destination: str) -> str | None:
        """Return the answer with which a destination disabled itself, or None if it is enabled."""
        return await RedisOutbox(self._client, self._partitions, destination).disabled_answer()

    async def drop(self, shown_id: str) -> None:
        """Remove an alert by its shown id."""
        names, entry_id = located(self._partitions, shown_id)
        await self._of[names].drop(entry_id)


def _shown(names: StreamNames, stored: StoredUndelivered) -> StoredUndelivered:
    return stored._replace(id=qualified(names, stored.id))
