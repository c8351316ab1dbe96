"""Send spans in a thread of their own, from a bounded queue, and count those that are not sent.

The thread is a daemon, and everything that may wait for the receiver happens in it: a receiver that is down,
hangs or refuses delays no batch, and the end of the process by a bounded time at most. The SDK's own queue
would drop spans without a count, so `_Admission` drops them before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

_QUEUE: Final = 2048
_AT_ONCE: Final = 512


class SpanCounts(NamedTuple):
    """Numbers of spans by outcome, since the start."""

    exported: int
    failed: int
    """Spans that the receiver did not take, even after retries."""
    dropped: int
    """Spans for which the queue had no room."""
    waiting: int
    """Spans in the queue, or under way to the receiver."""


class SpanExport:
    """Sends spans to the receiver.

    Args:
        exporter: sends spans; called in a thread.
        changed: is called in that thread when sending begins to fail, or succeeds again. Its argument is True
            if spans are received.
        overflows: is called in the event loop when the queue has no room for the first time.

    Raises:
        ValueError: a variable `OTEL_BSP_…` has a value that is no number, or not allowed.
    """

    def __init__(
        self, exporter: SpanExporter, changed: Callable[[bool], None], overflows: Callable[[], None]
    ) -> None:
        queue = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) or _QUEUE)
        at_once = min(int(os.environ.get(OTEL_BSP_MAX_EXPORT_BATCH_SIZE) or _AT_ONCE), queue)
        self._exporter = exporter
        self._counting = _CountingExporter(exporter, changed)
        self._batches = BatchSpanProcessor(
            self._counting, max_queue_size=queue, max_export_batch_size=at_once
        )
        self.processor = _Admission(self._batches, self._counting, queue, overflows)
        """The processor for the tracer provider."""

    def counts(self) -> SpanCounts:
        """Return how many spans were sent, and how many were not."""
        sent, failed = self._counting.exported, self._counting.failed
        return SpanCounts(sent, failed, self.processor.dropped, self.processor.admitted - sent - failed)

    async def close(self, within: float) -> None:
        """Send the spans in the queue, for at most `within` seconds, and stop."""
        loop, flushed = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._batches.shutdown()  # type: ignore[no-untyped-call]  # of the SDK
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(flushed.set)

        threading.Thread(target=flush, name="flush spans", daemon=True).start()
        try:
            async with asyncio.timeout(within):
                await flushed.wait()
        except TimeoutError:
            # Ends the pause before a retry. A request under way ends with the process.
            threading.Thread(target=self._exporter.shutdown, name="abandon spans", daemon=True).start()


class _CountingExporter(SpanExporter):
    """Counts what an exporter sends. Only its thread changes the counts."""

    def __init__(self, exporter: SpanExporter, changed: Callable[[bool], None]) -> None:
        self._exporter = exporter
        self._changed = changed
        self._receives = True
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans and count them."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - counted as failed; its words may have a secret
            result = SpanExportResult.FAILURE
        received = result is SpanExportResult.SUCCESS
        if received:
            self.exported += len(spans)
        else:
            self.failed += len(spans)
        if received != self._receives:
            self._receives = received
            self._changed(received)
        return result

    def shutdown(self) -> None:
        """Stop sending."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the exporter; return whether that succeeded."""
        return self._exporter.force_flush(timeout_millis)


class _Admission(SpanProcessor):
    """Admits spans to the queue while it has room, and counts the others. Called in the event loop only."""

    def __init__(
        self,
        batches: BatchSpanProcessor,
        counting: _CountingExporter,
        room: int,
        overflows: Callable[[], None],
    ) -> None:
        self._batches = batches
        self._counting = counting
        self._room = room
        self._overflows = overflows
        self.admitted = 0
        self.dropped = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that is sampled, or drop it."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self.admitted - self._counting.exported - self._counting.failed >= self._room:
            self.dropped += 1
            if self.dropped == 1:
                self._overflows()
            return
        self.admitted += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Do nothing: `SpanExport.close` stops sending."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - as the SDK calls it
        """Do nothing: `SpanExport.close` flushes."""
        return True
