"""Export the spans of a process by OTLP over HTTP, until it ends."""

from __future__ import annotations

import asyncio
import contextlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util.re import parse_env_headers

from service import logs
from service.observability.tracing import conventions
from service.observability.tracing.otel_spans import OtelSpans
from service.observability.tracing.sdk_messages import SdkMessages, secrets_of
from service.observability.tracing.span_export import SpanExport

if TYPE_CHECKING:
    from service.observability.otel_environment import TraceTarget
    from service.settings import Settings

FLUSH_SECONDS: Final = 2.0
"""Maximum seconds for sending the last spans when a process stops."""

_SCOPE: Final = "deltaloom"


class TraceExport:
    """The traces of this process: create it in the event loop, and close it at the end.

    Args:
        settings: settings of the process.
        target: the receiver.
        service: name of the program, unless `OTEL_SERVICE_NAME` has another.

    Raises:
        Exception: a standard variable has a value that the SDK does not accept.
    """

    def __init__(self, settings: Settings, target: TraceTarget, service: str) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._messages = SdkMessages(secrets_of(target.url, target.headers))
        self._messages.install()
        try:
            headers = parse_env_headers(target.headers, liberal=True)
            exporter = OTLPSpanExporter(endpoint=target.url, headers=headers)
            self._export = SpanExport(exporter, self._log_change, self._log_overflow)
            # The end of the process is ours: the SDK's own would wait for the receiver.
            self._provider = TracerProvider(resource=_resource(settings, service), shutdown_on_exit=False)
        except BaseException:
            self._messages.uninstall()
            raise
        self._provider.add_span_processor(self._export.processor)
        tracer = self._provider.get_tracer(
            _SCOPE, version("deltaloom-worker"), schema_url=conventions.SCHEMA_URL
        )
        shared = {conventions.CLIENT_ID: settings.consumer}
        self.spans = OtelSpans(tracer, shared | conventions.server_attributes(settings.address))
        """Reports spans."""
        if self._messages.latest is not None:
            logs.logger().warning("variable of traces ignored", error=self._messages.latest)
        logs.logger().info(
            "traces started", endpoint=target.shown, sampler=self._provider.sampler.get_description()
        )

    started = True

    def not_ready(self) -> list[str]:
        """Return nothing: no process needs its traces."""
        return []

    async def status(self) -> dict[str, Any]:
        """Return the receiver, and the numbers of spans, for people."""
        return {"endpoint": self._target.shown, "spans": self._export.counts()._asdict()}

    def outcomes(self) -> dict[str, int]:
        """Return the numbers of spans that were exported, failed or were dropped, by outcome."""
        counts = self._export.counts()._asdict()
        del counts["waiting"]
        return counts

    async def close(self) -> None:
        """Send the last spans, for at most `FLUSH_SECONDS`, and stop."""
        await self._export.close(FLUSH_SECONDS)
        counts = self._export.counts()
        lost = counts.failed + counts.dropped + counts.waiting
        logs.logger().info("traces stopped", exported=counts.exported, lost=lost)
        self._messages.uninstall()

    def _log_change(self, received: bool) -> None:  # noqa: FBT001 - a callback
        """Log in the event loop that sending fails, or succeeds again."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            if received:
                self._loop.call_soon_threadsafe(self._log_recovery)
            else:
                self._loop.call_soon_threadsafe(self._log_failure, self._messages.latest or "unknown")

    def _log_overflow(self) -> None:
        logs.logger().warning("spans dropped, the queue is full", endpoint=self._target.shown)

    def _log_failure(self, reason: str) -> None:
        logs.logger().warning("traces not exported", endpoint=self._target.shown, error=reason)

    def _log_recovery(self) -> None:
        counts = self._export.counts()
        logs.logger().info("traces exported again", failed=counts.failed, dropped=counts.dropped)


def _resource(settings: Settings, service: str) -> Resource:
    """Return the description of this process; standard variables take precedence."""
    ours = {
        "service.name": service,
        "service.version": version("deltaloom-worker"),
        "service.instance.id": settings.consumer,
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes}, conventions.SCHEMA_URL)
