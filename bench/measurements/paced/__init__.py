"""Measurement: cost and latency under steady load, from nearly idle to busy.

| file              | contents                                                |
|-------------------|---------------------------------------------------------|
| `figures.py`      | the figures of a run, and their names                   |
| `rates.py`        | the cases of 100 to 20,000 events/s                     |
| `burst.py`        | the case of hundreds of texts that close at once        |
| `highest_rate.py` | the case of the highest rate that is kept up with       |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measurements.paced import burst, figures, highest_rate, rates

if TYPE_CHECKING:
    from bench.stage import Stage

NAME = figures.NAME


def measure(stage: Stage) -> None:
    """Measure all cases."""
    stage.results.notes[NAME] = f"{rates.NOTE} {burst.NOTE} {highest_rate.NOTE}"
    rates.measure(stage)
    burst.measure(stage)
    highest_rate.measure(stage)
