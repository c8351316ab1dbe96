"""The reports of worker and relay about themselves: counts and spans."""

from __future__ import annotations

from typing import NamedTuple

from service.ports.instruments import OFF, RELAY_OFF, Instruments, RelayInstruments
from service.ports.spans import NO_SPANS, Spans


class Telemetry(NamedTuple):
    """The reports of a worker."""

    instruments: Instruments = OFF
    """The instruments that count the work of the worker."""
    spans: Spans = NO_SPANS
    """The spans of its batches."""


class RelayTelemetry(NamedTuple):
    """The reports of a relay."""

    instruments: RelayInstruments = RELAY_OFF
    """The instruments that count the deliveries of the relay."""
    spans: Spans = NO_SPANS
    """The spans of its attempts to deliver."""


SILENT = Telemetry()
"""Telemetry of a worker that reports nothing."""

SILENT_RELAY = RelayTelemetry()
"""Telemetry of a relay that reports nothing."""
