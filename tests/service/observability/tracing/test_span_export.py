"""Test the queue of spans: it is bounded, waits for nobody, and counts what is lost."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_SCHEDULE_DELAY
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from service.observability.tracing.span_export import SpanCounts, SpanExport
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Tracer


class Exporter(SpanExporter):
    """An exporter that may hang, fail or raise."""

    def __init__(self) -> None:
        self.hangs = False
        self.result = SpanExportResult.SUCCESS
        self.raises = False
        self.goes_on = threading.Event()
        self.stopped = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - as the SDK calls it
        """Do as the test says."""
        if self.hangs:
            self.goes_on.wait()
        if self.raises:
            raise ValueError
        return self.result

    def shutdown(self) -> None:
        """Note that it was called."""
        self.stopped.set()


@contextmanager
def exporting(exporter: Exporter) -> Iterator[tuple[SpanExport, Tracer, list[object]]]:
    """Export spans; yield the export, a tracer, and the list of what was reported."""
    reported: list[object] = []
    export = SpanExport(exporter, reported.append, lambda: reported.append("overflows"))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.processor)
    try:
        yield export, provider.get_tracer("test"), reported
    finally:
        exporter.goes_on.set()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OTEL_BSP_SCHEDULE_DELAY, "10")
    monkeypatch.setenv(OTEL_BSP_MAX_QUEUE_SIZE, "3")


async def test_a_full_queue_drops_and_counts() -> None:
    """Drop spans while the exporter hangs, without waiting, and export later ones again."""
    exporter = Exporter()
    exporter.hangs = True
    with exporting(exporter) as (export, tracer, reported):
        for _ in range(10):
            tracer.start_span("x").end()
        assert export.counts() == SpanCounts(exported=0, failed=0, dropped=7, waiting=3)
        assert reported == ["overflows"]
        exporter.hangs = False
        exporter.goes_on.set()
        await wait_until(lambda: export.counts().waiting == 0)
        tracer.start_span("x").end()
        await wait_until(lambda: export.counts() == SpanCounts(4, 0, 7, 0))
        await export.close(60)
        assert exporter.stopped.is_set()


async def test_failures_are_counted_and_reported_once() -> None:
    """Count spans that were not received, and report the first failure and the recovery only."""
    exporter = Exporter()
    exporter.result = SpanExportResult.FAILURE
    with exporting(exporter) as (export, tracer, reported):
        tracer.start_span("x").end()
        await wait_until(lambda: export.counts().failed == 1)
        tracer.start_span("x").end()
        await wait_until(lambda: export.counts().failed == 2)
        exporter.raises = True
        tracer.start_span("x").end()
        await wait_until(lambda: export.counts().failed == 3)
        exporter.raises, exporter.result = False, SpanExportResult.SUCCESS
        tracer.start_span("x").end()
        await wait_until(lambda: export.counts() == SpanCounts(1, 3, 0, 0))
        assert reported == [False, True]
        await export.close(60)


async def test_close_sends_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the last spans at once, not after the schedule's delay."""
    monkeypatch.setenv(OTEL_BSP_SCHEDULE_DELAY, "3600000")
    with exporting(Exporter()) as (export, tracer, _):
        tracer.start_span("x").end()
        await export.close(60)
        assert export.counts() == SpanCounts(1, 0, 0, 0)


async def test_close_does_not_wait_for_a_hanging_exporter() -> None:
    """Return in time although an exporter hangs, and tell it to give up."""
    exporter = Exporter()
    exporter.hangs = True
    with exporting(exporter) as (export, tracer, _):
        tracer.start_span("x").end()
        await export.close(0.05)
        assert "flush spans" in {thread.name for thread in threading.enumerate()}
        assert export.counts() == SpanCounts(0, 0, 0, waiting=1)
        await wait_until(exporter.stopped.is_set)


async def test_spans_that_are_not_sampled_are_not_sent() -> None:
    """Neither send nor count a span that is recorded here, but not sampled."""

    class RecordOnly(Sampler):
        """Record every span, and sample none."""

        def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
            """Return the decision."""
            return SamplingResult(Decision.RECORD_ONLY)

        def get_description(self) -> str:
            """Return the name."""
            return "RecordOnly"

    export = SpanExport(Exporter(), print, print)
    provider = TracerProvider(sampler=RecordOnly(), shutdown_on_exit=False)
    provider.add_span_processor(export.processor)
    span = provider.get_tracer("test").start_span("x")
    assert span.is_recording()
    span.end()
    assert provider.force_flush()
    await export.close(60)
    assert export.counts() == SpanCounts(0, 0, 0, 0)


@pytest.mark.parametrize("value", ["none", "0", "-1"])
def test_unusable_queue(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Raise an error for a queue that cannot be."""
    monkeypatch.setenv(OTEL_BSP_MAX_QUEUE_SIZE, value)
    with pytest.raises(ValueError, match=r"."):
        SpanExport(Exporter(), print, print)
