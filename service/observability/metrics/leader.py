"""Measure the whole group, in one of its processes: the one that holds the lease.

Every process tries to hold it, every few seconds. Only the holder measures and exports, so a sum over all
processes is right. When it ends, it releases the lease; if it dies, another one follows when that expires.
While Redis refuses the lease to all of them, each measures and exports.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

from service.observability.metrics import catalog
from service.ports.storage import StorageUnavailableError

if TYPE_CHECKING:
    from service.observability.metrics.samples import Samples
    from service.ports.deployment_figures import GroupFigures
    from service.ports.outbox import LeaseStore

INTERVAL = 5.0
"""Seconds between two measurements."""

_LEASE_SECONDS = 2.5 * INTERVAL
"""Seconds after which another process measures, and after which figures are too old to be exported."""


class FigureStore(Protocol):
    """Measures the group."""

    async def ask(self) -> GroupFigures:
        """Return the figures of now.

        Raises:
            StorageUnavailableError: they cannot be measured.
        """
        ...


class Leader:
    """A candidate for measuring the group.

    Args:
        figures: measures the group.
        lease: the right to do so.
    """

    interval = INTERVAL

    def __init__(self, figures: FigureStore, lease: LeaseStore) -> None:
        self._store = figures
        self._lease = lease
        self._figures: GroupFigures | None = None
        self._valid_until = 0.0

    async def look(self) -> None:
        """Measure the group if this process holds the lease or gets it, or if Redis refuses writes.

        Raises:
            StorageUnavailableError: Redis does not answer.
        """
        asked_at = time.monotonic()
        if not await self._holds():
            self._figures = None
            return
        self._figures = await self._store.ask()
        self._valid_until = asked_at + _LEASE_SECONDS

    async def _holds(self) -> bool:
        """Return whether this process measures: it holds the lease, or Redis refuses the lease to all.

        A server that refuses writes can still be measured, and its figures matter most then.
        """
        try:
            return await self._lease.acquire(round(_LEASE_SECONDS * 1000))
        except StorageUnavailableError:
            return True

    async def leave(self) -> None:
        """Release the lease, so that another process measures soon."""
        self._figures = None
        with contextlib.suppress(StorageUnavailableError):
            await self._lease.release()

    def samples(self) -> Samples:
        """Return the figures, unless another process exports them."""
        if self._figures is None or time.monotonic() >= self._valid_until:
            return {}
        return samples_of(self._figures)


def samples_of(figures: GroupFigures) -> Samples:
    """Return the metrics of a group."""
    none = ()
    samples: Samples = {
        catalog.INPUT_LAG.name: {none: figures.lag},
        catalog.INPUT_OLDEST.name: {none: figures.oldest_seconds},
        catalog.PENDING.name: {none: figures.pending},
        catalog.OLDEST_PENDING.name: {none: figures.oldest_pending_seconds},
        catalog.LOW_WATER_AGE.name: {none: figures.low_water_seconds},
        catalog.OPEN.name: {none: figures.open},
        catalog.WAITING.name: {none: figures.waiting},
        catalog.STORED_COUNTS.name: {
            (name,): figures.counts.get(name, 0) for name in catalog.STORED_COUNT_NAMES
        },
    }
    if figures.memory_ratio is not None:
        samples[catalog.MEMORY_RATIO.name] = {none: figures.memory_ratio}
    return samples
