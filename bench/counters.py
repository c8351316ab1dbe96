"""Counters of a worker and its server, and what both did in a period."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bench.ground import Ground
    from bench.processes import Workers

_COMMANDS_OF_A_READING = 2


class Counters(NamedTuple):
    """The counters at a time, or the differences of two such readings."""

    at: float
    """Time by `time.monotonic`, in seconds."""
    worker_cpu: float
    """Processor time of the worker, in seconds."""
    server_cpu: float
    """Processor time of the server, in seconds."""
    commands: int
    """Number of commands that the server has executed, those in scripts included."""

    def since(self, before: Counters) -> Counters:
        """Return what has been done since an earlier reading, without the commands that reading takes."""
        return Counters(
            self.at - before.at,
            self.worker_cpu - before.worker_cpu,
            self.server_cpu - before.server_cpu,
            self.commands - before.commands - _COMMANDS_OF_A_READING,
        )


def read(place: Ground, workers: Workers) -> Counters:
    """Return the current counters."""
    worker_cpu, server_cpu = workers.cpu_seconds(), place.cpu_seconds()
    return Counters(time.monotonic(), worker_cpu, server_cpu, place.commands())
