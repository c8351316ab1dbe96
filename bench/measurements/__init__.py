"""The table of measurements, with one file for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.measurements import (
    growth,
    idle,
    latency,
    open_parts,
    paced,
    processes,
    publishing,
    soak,
    start_up,
    throughput,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.stage import Stage


class Measurement(NamedTuple):
    """A measurement."""

    name: str
    says: str
    measure: Callable[[Stage], None]


MEASUREMENTS = (
    Measurement(throughput.NAME, "events/s and CPU of one process, everyone in turn", throughput.measure),
    Measurement(publishing.NAME, "events/s of a publisher", publishing.measure),
    Measurement(latency.NAME, "from XADD to text and alert, at 10 % and 50 % load", latency.measure),
    Measurement(
        paced.NAME, "cost and latency at 100 to 20,000 events/s, bursts, and the highest rate", paced.measure
    ),
    Measurement(idle.NAME, "cost of a worker without traffic", idle.measure),
    Measurement(processes.NAME, "1, 2 and 4 worker processes", processes.measure),
    Measurement(growth.NAME, "a delta's cost in long texts and short ones", growth.measure),
    Measurement(open_parts.NAME, "server memory of open texts", open_parts.measure),
    Measurement(soak.NAME, "memory while millions of events go through", soak.measure),
    Measurement(start_up.NAME, "process start to first read and first acknowledged entry", start_up.measure),
)
