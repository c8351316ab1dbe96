"""The reports of worker and relay about themselves: counts and spans."""

from __future__ import annotations

from typing import NamedTuple

from service.ports.instruments import OFF, RELAY_OFF, Instruments, RelayInstruments
from service.ports.spans import NO_SPANS, Spans


class Telemetry(NamedTuple):
    """The reports of a worker."""

    instruments: Instruments = OFF
    """Count its work."""
    spans: Spans = NO_SPANS
    """Report its batches."""


class RelayTelemetry(NamedTuple):
    """The reports of a relay."""

    instruments: RelayInstruments = RELAY_OFF
    """Count its deliveries."""
    spans: Spans = NO_SPANS
    """Report its attempts to deliver."""


SILENT = Telemetry()
"""Reports nothing of a worker."""

SILENT_RELAY = RelayTelemetry()
"""Reports nothing of a relay."""
