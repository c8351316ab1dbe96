"""A receiver of traces that parses the messages of OTLP, and the environment that sends traces to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from tests.receivers import Receiver


class ReceivedSpan(NamedTuple):
    """A span that was received, with its scope and resource."""

    span: Span
    scope: str
    schema_url: str
    resource: dict[str, object]

    @property
    def attributes(self) -> dict[str, object]:
        """Return the attributes of the span."""
        return _values(self.span.attributes)

    @property
    def linked(self) -> set[str]:
        """Return the linked traces and spans in hexadecimal digits, as `trace-span`."""
        return {f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in self.span.links}


def spans_at(receiver: Receiver) -> list[ReceivedSpan]:
    """Return the spans that a receiver has got so far, in order."""
    found = []
    for request in receiver.received:
        assert (request.method, request.path) == ("POST", "/v1/traces")
        assert request.headers["Content-Type"] == "application/x-protobuf"
        message = ExportTraceServiceRequest.FromString(request.body)
        found += [
            ReceivedSpan(span, scope.scope.name, scope.schema_url, _values(resource.resource.attributes))
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    return found


def otel_environment(receiver: Receiver | str, **more: str) -> dict[str, str]:
    """Return the variables that send traces to a receiver or URL; a keyword `BSP_…` sets `OTEL_BSP_…`."""
    url = receiver if isinstance(receiver, str) else receiver.url
    given = {"EXPORTER_OTLP_ENDPOINT": url, "BSP_SCHEDULE_DELAY": "50", **more}
    return {f"OTEL_{name}": value for name, value in given.items()}


def _values(attributes: Iterable[KeyValue]) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in attributes}
