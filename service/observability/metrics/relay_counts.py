"""The instruments of a relay."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from service.observability.metrics import catalog
from service.observability.metrics.process_samples import of_redis_user

if TYPE_CHECKING:
    from service.observability.metrics.samples import Samples
    from service.ports.deployment_figures import BacklogFigures
    from service.ports.instruments import Availability


class RelayCounts:
    """The implementation of `service.ports.instruments.RelayInstruments` that counts."""

    on = True

    def __init__(self) -> None:
        self._deliveries: Counter[tuple[str, ...]] = Counter()
        self._backlogs: dict[str, BacklogFigures] = {}
        self._paused: dict[str, bool] = {}
        self._retriers: list[Availability] = []

    def watch(self, retrier: Availability) -> None:
        """Report Redis as unavailable while it is for this retrier."""
        self._retriers.append(retrier)

    def ended(self, destination: str, outcome: str) -> None:
        """Count an attempt, or a message that was given up."""
        self._deliveries[destination, outcome] += 1

    def measured(self, destination: str, backlog: BacklogFigures, *, paused: bool) -> None:
        """Record the backlog of a destination."""
        self._backlogs[destination] = backlog
        self._paused[destination] = paused

    def left(self, destination: str) -> None:
        """Forget the backlog of a destination."""
        self._backlogs.pop(destination, None)
        self._paused.pop(destination, None)

    def samples(self) -> Samples:
        """Return the values of all metrics of a relay."""
        return {
            **of_redis_user(self._retriers),
            catalog.DELIVERIES.name: {**self._deliveries},
            **samples_of_backlogs(self._backlogs),
            catalog.PAUSED.name: {(name,): int(paused) for name, paused in self._paused.items()},
        }


def samples_of_backlogs(backlogs: dict[str, BacklogFigures]) -> Samples:
    """Return the metrics of backlogs, by destination."""
    now = time.time()
    return {
        catalog.BACKLOG.name: {(name,): each.alerts for name, each in backlogs.items()},
        catalog.RELAY_OLDEST.name: {(name,): each.oldest_seconds(now) for name, each in backlogs.items()},
    }
