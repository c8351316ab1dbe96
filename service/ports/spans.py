"""The port through which worker and relay report spans of traces, and the implementation that reports none.

A span has times, counts, names of streams and destinations, and links to the traces of producers. It never
has a text, or an id of a person or a response. `service/observability/tracing/` implements the port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from typing import Self


class BatchSpan(Protocol):
    """The span of a batch in hand."""

    @property
    def on(self) -> bool:
        """True if the span is recorded, so that a caller need not collect what nobody gets."""
        ...

    def committed(self, traceparents: Iterable[str], acknowledged: int, dead_letters: int) -> None:
        """Record the results of one commit. A batch may need several commits.

        Args:
            traceparents: W3C `traceparent` of producers. Invalid ones are ignored.
            acknowledged: number of entries that it has acknowledged.
            dead_letters: number of dead letters that it has written.
        """
        ...


class DeliveryAttempt(NamedTuple):
    """An attempt to deliver a message to a destination."""

    destination: str
    """Name of the destination in `alerts.toml`."""
    stream: str
    """Name of the stream of its first alert."""
    entry: str
    """Id of the entry of its first alert."""
    number: int
    """Number of the attempt, from 1."""
    alerts: int
    """Number of alerts in the message; above 1 for a digest."""
    traceparents: Sequence[str]
    """W3C `traceparent` of each alert that has one. Invalid ones are ignored."""
    alert_type: str
    """Type of its first alert."""
    provider: str | None = None
    model: str | None = None


class AttemptSpan(Protocol):
    """The span of an attempt under way."""

    def answered(self, outcome: str) -> None:
        """Record the outcome: `delivered`, `retry`, `refused` or `gone`."""
        ...


class Spans(Protocol):
    """Reports spans. Apart from the errors of the block, no method raises an error, and none waits."""

    @property
    def on(self) -> bool:
        """True if spans are reported."""
        ...

    def batch(self, stream: str, entries: int, *, redelivered: bool) -> AbstractContextManager[BatchSpan]:
        """Report the block as the processing of a batch of `entries` entries of a stream.

        `redelivered` is True if the entries were delivered before.
        """
        ...

    def attempt(self, attempt: DeliveryAttempt) -> AbstractContextManager[AttemptSpan]:
        """Report the block as an attempt to deliver a message."""
        ...


class _NoSpan:
    """A span that nobody gets."""

    on = False

    def committed(self, traceparents: Iterable[str], acknowledged: int, dead_letters: int) -> None:
        """Do nothing."""

    def answered(self, outcome: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


_NO_SPAN = _NoSpan()

NO_SPAN: BatchSpan = _NO_SPAN
"""The span of a batch that nobody gets."""


class _NoSpans:
    """Spans that nobody gets."""

    on = False

    def batch(self, stream: str, entries: int, *, redelivered: bool) -> _NoSpan:  # noqa: ARG002 - as the port
        """Report nothing."""
        return _NO_SPAN

    def attempt(self, attempt: DeliveryAttempt) -> _NoSpan:  # noqa: ARG002 - as the port
        """Report nothing."""
        return _NO_SPAN


NO_SPANS: Spans = _NoSpans()
"""Reports no spans."""
