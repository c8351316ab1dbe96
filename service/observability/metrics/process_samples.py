"""The metrics that every program has: its version, and whether it can use Redis."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from service.observability.metrics import catalog
from service.storage.state_format import FORMAT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.observability.metrics.samples import Samples
    from service.ports.instruments import Availability


def of_process(*, is_up: bool) -> Samples:
    """Return the metrics of a program that knows only whether Redis answers it."""
    return {
        catalog.BUILD_INFO.name: {(version("deltaloom-worker"), str(FORMAT)): 1},
        catalog.REDIS_UP.name: {(): int(is_up)},
    }


def of_redis_user(parts: Sequence[Availability]) -> Samples:
    """Return the metrics of a program with these parts that wait for Redis."""
    return of_process(is_up=not any(each.is_away for each in parts)) | {
        catalog.REDIS_MISCONFIGURED.name: {(): int(any(each.needs_operator for each in parts))},
        catalog.UNAVAILABLE_SECONDS.name: {(): max((each.away_seconds for each in parts), default=0.0)},
    }
