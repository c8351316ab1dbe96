"""The seeded plan of a run's faults and their times. Pure."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

INTERVALS: Final = {
    "worker-kill": 6.0,
    "worker-stop": 12.0,
    "relay-kill": 8.0,
    "relay-stop": 15.0,
    "server-kill": 40.0,
    "cut": 6.0,
    "mute": 9.0,
    "delay": 15.0,
    "stall": 20.0,
    "oom": 30.0,
    "client-kill": 8.0,
    "script-flush": 8.0,
}
"""Mean seconds between two faults of each kind."""

_LENGTHS: Final = {
    "worker-kill": (0.0, 4.0),
    "worker-stop": (0.2, 7.0),
    "relay-kill": (0.0, 2.0),
    "relay-stop": (0.2, 5.0),
    "server-kill": (0.0, 2.0),
    "cut": (0.0, 0.0),
    "mute": (0.1, 1.5),
    "delay": (0.5, 4.0),
    "stall": (0.3, 7.0),
    "oom": (0.3, 3.0),
    "client-kill": (0.0, 0.0),
    "script-flush": (0.0, 0.0),
}
"""Minimum and maximum duration of each kind of fault, in seconds. A killed process is down for as long."""


class Fault(NamedTuple):
    """A planned fault."""

    at: float
    """Seconds after the start of the run."""
    kind: str
    seconds: float
    choice: float
    """Number from 0 to 1 that chooses a worker or a share of the connections."""


def make_plan(seed: str, seconds: float, intervals: Mapping[str, float]) -> list[Fault]:
    """Return the faults in order of time: each kind at least once, evenly but irregularly distributed."""
    rng = random.Random(f"{seed}/plan")
    faults: list[Fault] = []
    for kind, interval in sorted(intervals.items()):
        count = max(1, round(seconds / interval))
        slot = seconds / count
        faults += [
            Fault(slot * (n + rng.random()), kind, rng.uniform(*_LENGTHS[kind]), rng.random())
            for n in range(count)
        ]
    return sorted(faults)
