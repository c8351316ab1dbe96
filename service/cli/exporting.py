"""Export the traces of a process, if the environment asks for them."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from service import logs
from service.ports.spans import NO_SPANS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from service.observability.metrics.endpoint import MetricsEndpoint
    from service.observability.observation import Observed
    from service.ports.spans import Spans
    from service.settings import Settings


class ProcessTraces(NamedTuple):
    """The traces of this process."""

    spans: Spans
    """Reports spans."""
    parts: Mapping[str, Observed]
    """The part of the process that exports them, by name; empty if there is none."""


_NONE = ProcessTraces(NO_SPANS, {})


@asynccontextmanager
async def exporting_traces(
    settings: Settings, service: str, metrics: MetricsEndpoint | None
) -> AsyncIterator[ProcessTraces]:
    """Export the spans that are reported within the block, and send the last ones at its end.

    Traces never stop a process: if they cannot be sent, this is logged, and no span is reported.

    Args:
        settings: settings of the process.
        service: name of the program in traces.
        metrics: gets the numbers of spans; None if the process serves no metrics.
    """
    from service.observability.otel_environment import trace_target

    target = trace_target(os.environ)
    if target is None:
        yield _NONE
        return
    if target.problem is not None:
        logs.logger().warning("traces off", error=target.problem)
        yield _NONE
        return
    from service.observability.tracing.trace_export import TraceExport

    try:
        export = TraceExport(settings, target, service)
    except Exception as error:  # noqa: BLE001 - wrong variables of the SDK; their values may be secret
        logs.logger().warning("traces off", error=f"{type(error).__name__} in a variable OTEL_…")
        yield _NONE
        return
    if metrics is not None:
        metrics.of_traces(export.outcomes)
    try:
        yield ProcessTraces(export.spans, {"traces": export})
    finally:
        await export.close()
