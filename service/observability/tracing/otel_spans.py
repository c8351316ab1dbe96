"""Spans of batches and of attempts to deliver, made with OpenTelemetry's SDK.

A batch is a trace of its own, with a link to the trace of each producer. An attempt to deliver one alert is
part of the trace that the alert's `traceparent` names, and has a link to it, as the conventions ask for; an
attempt to deliver a digest is a trace of its own.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanKind, Status, StatusCode, set_span_in_context

from deltaloom.streams import GROUP
from service.observability.tracing import conventions as names
from service.ports.outbox import RELAY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.trace import Span, Tracer

    from service.ports.spans import DeliveryAttempt

MAX_LINKS: Final = 32
"""Maximum links of a span; further traces are counted in an attribute."""

_NO_PARENT: Final = Context()
_SAMPLED = frozenset("13579bdf")
"""Last characters of a `traceparent` whose trace is recorded."""


class _RecordedBatch:
    """The span of a batch. Until the batch ends, it collects what its commits have done."""

    def __init__(self, span: Span) -> None:
        self.on = span.is_recording()
        self._span = span
        self._acknowledged = self._dead_letters = 0
        self._traceparents: dict[str, None] = {}

    def committed(self, traceparents: Iterable[str], acknowledged: int, dead_letters: int) -> None:
        """Record what a commit of the batch has done."""
        self._traceparents |= dict.fromkeys(traceparents)
        self._acknowledged += acknowledged
        self._dead_letters += dead_letters

    def complete(self) -> None:
        """Give the span its links and counts."""
        _add_links(self._span, self._traceparents)
        self._span.set_attribute(names.ACKNOWLEDGED, self._acknowledged)
        self._span.set_attribute(names.DEAD_LETTERS, self._dead_letters)


class _RecordedAttempt:
    """The span of an attempt."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, outcome: str) -> None:
        """Record the outcome."""
        self._span.set_attribute(names.OUTCOME, outcome)
        if outcome != "delivered":
            _mark_failed(self._span, outcome)


class OtelSpans:
    """The implementation of `service.ports.spans.Spans` by OpenTelemetry.

    Args:
        tracer: creates the spans, and decides which are recorded.
        shared: attributes that all spans have.
    """

    on = True

    def __init__(self, tracer: Tracer, shared: Mapping[str, str | int]) -> None:
        self._tracer = tracer
        self._shared = {names.SYSTEM: names.REDIS, names.OPERATION_TYPE: names.PROCESS, **shared}

    @contextmanager
    def batch(self, stream: str, entries: int, *, redelivered: bool) -> Iterator[_RecordedBatch]:
        """Report the block as the processing of a batch."""
        span = self._tracer.start_span(
            f"{names.PROCESS} {stream}",
            _NO_PARENT,
            SpanKind.CONSUMER,
            {
                **self._shared,
                names.OPERATION_NAME: names.PROCESS,
                names.STREAM: stream,
                names.GROUP_NAME: GROUP,
                names.MESSAGE_COUNT: entries,
                names.REDELIVERED: redelivered,
            },
        )
        batch = _RecordedBatch(span)
        try:
            yield batch
        except BaseException as error:
            _mark_failed(span, type(error).__name__)
            raise
        finally:
            if batch.on:
                batch.complete()
            span.end()

    @contextmanager
    def attempt(self, attempt: DeliveryAttempt) -> Iterator[_RecordedAttempt]:
        """Report the block as an attempt to deliver a message."""
        parent = _NO_PARENT
        if attempt.alerts == 1 and attempt.traceparents:
            found = names.span_context(attempt.traceparents[0])
            parent = parent if found is None else set_span_in_context(NonRecordingSpan(found), parent)
        span = self._tracer.start_span(
            f"{names.DELIVER} {attempt.stream}",
            parent,
            SpanKind.CONSUMER,
            {
                **self._shared,
                names.OPERATION_NAME: names.DELIVER,
                names.STREAM: attempt.stream,
                names.GROUP_NAME: RELAY_PREFIX + attempt.destination,
                names.DESTINATION: attempt.destination,
                names.ATTEMPT: attempt.number,
                **_about(attempt),
            },
        )
        if span.is_recording():
            _add_links(span, dict.fromkeys(attempt.traceparents))
        try:
            yield _RecordedAttempt(span)
        except BaseException as error:
            _mark_failed(span, type(error).__name__)
            raise
        finally:
            span.end()


def _about(attempt: DeliveryAttempt) -> dict[str, str | int]:
    """Return the attributes of the alert of an attempt, or the number of alerts in its digest."""
    if attempt.alerts > 1:
        return {names.MESSAGE_COUNT: attempt.alerts}
    about = {
        names.MESSAGE_ID: attempt.entry,
        names.ALERT_TYPE: names.name_of_alert_type(attempt.alert_type),
        names.PROVIDER: names.name_of_provider(attempt.provider),
        names.MODEL: names.name_of_model(attempt.model),
    }
    return {name: value for name, value in about.items() if value is not None}


def _add_links(span: Span, traceparents: Mapping[str, None]) -> None:
    """Link a span to at most `MAX_LINKS` traces, first to recorded ones, and count the others."""
    count = 0
    for traceparent in sorted(traceparents, key=_is_not_sampled):
        if count == MAX_LINKS:
            span.set_attribute(names.LINKS_LEFT_OUT, len(traceparents) - count)
            break
        context = names.span_context(traceparent)
        if context is not None:
            span.add_link(context)
            count += 1


def _is_not_sampled(traceparent: str) -> bool:
    return traceparent[-1:] not in _SAMPLED


def _mark_failed(span: Span, error_type: str) -> None:
    """Mark a span as failed, with the type of the error but not its message, which may quote a text."""
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))
