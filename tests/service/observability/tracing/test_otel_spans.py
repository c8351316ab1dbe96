"""Test spans of batches and attempts that fail, and spans that are not sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service.observability.tracing import conventions as names
from service.observability.tracing.otel_spans import OtelSpans
from service.ports.spans import DeliveryAttempt

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Return an exporter that keeps the spans."""
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> OtelSpans:
    """Return spans that go to the exporter at once."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OtelSpans(provider.get_tracer("test"), {})


def attempt_of(*traceparents: str) -> DeliveryAttempt:
    """Return an attempt to deliver an alert for each of these traces."""
    return DeliveryAttempt("hook", "alerts", "1-0", 1, len(traceparents), traceparents, "refusal")


def failed(span: ReadableSpan) -> tuple[object, object, object]:
    """Return the type of the error of a span, its status and its description."""
    return (span.attributes or {}).get(names.ERROR_TYPE), span.status.status_code, span.status.description


def test_a_batch_that_fails_is_marked(spans: OtelSpans, exporter: InMemorySpanExporter) -> None:
    """Mark the span with the type of the error, but not with its message, which may quote a text."""
    with pytest.raises(LookupError), spans.batch("deltas", 3, redelivered=False):
        raise LookupError("secret")
    (span,) = exporter.get_finished_spans()
    assert failed(span) == ("LookupError", StatusCode.ERROR, None)
    assert span.events == ()


def test_an_attempt_that_fails_is_marked(spans: OtelSpans, exporter: InMemorySpanExporter) -> None:
    """Mark the span of an attempt that raises an error in the same way."""
    with pytest.raises(LookupError), spans.attempt(attempt_of(TRACE)):
        raise LookupError("secret")
    (span,) = exporter.get_finished_spans()
    assert failed(span) == ("LookupError", StatusCode.ERROR, None)


def test_invalid_traceparents_are_not_linked(spans: OtelSpans, exporter: InMemorySpanExporter) -> None:
    """Link the span of a digest to the traces of its alerts that have a valid one."""
    with spans.attempt(attempt_of("nonsense", TRACE)) as attempt:
        attempt.answered("delivered")
    (span,) = exporter.get_finished_spans()
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE.split("-")[1]]
    assert failed(span)[1] == StatusCode.UNSET
