"""Measure a process whose metrics are asked for over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from service.observability.metrics.endpoint import MetricsEndpoint
    from service.observability.routes import Route
    from service.settings import Settings


def metrics_of(settings: Settings) -> MetricsEndpoint | None:
    """Return the endpoint for the metrics of this process; None if it serves none, and counts nothing."""
    if settings.http is None:
        return None
    from service.observability.metrics.endpoint import MetricsEndpoint

    return MetricsEndpoint()


def metrics_of_siblings(
    settings: Settings, from_each: Callable[[str], Awaitable[Mapping[int, bytes | None]]]
) -> Mapping[str, Route]:
    """Return the routes for the metrics of several processes as those of one; none without HTTP.

    Args:
        settings: settings of the processes.
        from_each: asks each process for a path, and returns the answers, or None for those without one.
    """
    if settings.http is None:
        return {}
    from service.observability.metrics.endpoint import VALUES, ParentEndpoint

    async def ask() -> list[bytes]:
        return [body for body in (await from_each(VALUES)).values() if body is not None]

    return ParentEndpoint(ask).routes
