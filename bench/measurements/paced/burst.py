"""Case: hundreds of open responses whose texts all close within 20 ms.

All responses have texts of the same length and begin together. Each streams 50 events a second, so their
closing events are published within a fiftieth of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.competitors import HAND_WRITTEN, OURS
from bench.entries import load
from bench.generator import Shape
from bench.live import Pace
from bench.measurements.paced import figures

if TYPE_CHECKING:
    from bench.stage import Stage

_OPEN, _QUICK_OPEN = 400, 4
_DELTAS, _QUICK_DELTAS = 100, 4
_RESPONSES, _QUICK_RESPONSES = 3, 2
"""Number of responses one after the other. Each has two texts, so there are twice as many bursts."""
_BEFORE, _AROUND = 4, 13
"""Number of events before the first delta of a response, and of all its events that are not deltas."""
CASE = "burst"
NOTE = (
    f"In the burst, {_OPEN} responses are open at 20,000 events/s, and all their texts close within 20 ms, "
    f"{2 * _RESPONSES} times; the first time is not measured."
)


def measure(stage: Stage) -> None:
    """Publish responses that are in step, with both competitors in turn."""
    open_responses = stage.options.scaled(_OPEN, _QUICK_OPEN)
    deltas = stage.options.scaled(_DELTAS, _QUICK_DELTAS)
    shape = in_step(open_responses, deltas, stage.options.scaled(_RESPONSES, _QUICK_RESPONSES))
    rate = open_responses * figures.A_SECOND
    after_first_burst = (_BEFORE + deltas + 2) / figures.A_SECOND
    before_the_end = shape.events / rate - 1 / figures.A_SECOND  # the last texts close before
    pace = Pace(rate, after_first_burst, before_the_end)
    for number in stage.rounds(CASE):
        input_ = load(f"{stage.options.seed}/{number}", shape, stage.place.names.deltas)
        for competitor in filter(stage.takes_part, (OURS, HAND_WRITTEN)):
            figures.note(stage, CASE, competitor, stage.live(CASE, competitor, input_, pace))


def in_step(open_responses: int, deltas: int, responses: int) -> Shape:
    """Return a shape in which open responses are in step, for this number of responses one after another."""
    events = open_responses * responses * (2 * deltas + _AROUND)
    return Shape(open_responses, events, deltas=deltas, uniform=True)
