"""Measurement: cost of a delta in a text that grows long, compared with short texts.

Number of events, open responses and events per entry are equal: a few texts of 100,000 deltas, or many of
100. The cost of finishing the texts is included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.competitors import OURS
from bench.generator import FOUR_CHARACTERS, Shape

if TYPE_CHECKING:
    from bench.stage import Stage

NAME = "growth"
LONG, SHORT = "long texts", "short texts"
DELTA = "µs a delta"
_OPEN = 4
_DELTAS = 100
_LONG_DELTAS, _QUICK_LONG_DELTAS = 100_000, 2_000
_AROUND = 8


def measure(stage: Stage) -> None:
    """Drain short texts and long texts."""
    if not stage.takes_part(OURS):
        return
    most = stage.options.scaled(_LONG_DELTAS, _QUICK_LONG_DELTAS)
    stage.results.notes[NAME] = (
        f"{_OPEN} responses open at once, of one text each, one event an entry; a long text has "
        f"{most:,} deltas, a short one {_DELTAS}."
    )
    events = _OPEN * (most + _AROUND)
    for _ in stage.rounds("long and short texts"):
        for case, deltas in ((SHORT, _DELTAS), (LONG, most)):
            load = stage.load(Shape(_OPEN, events, deltas=deltas, refusals=False, uniform=True))
            drained = stage.drain(case, OURS, load)
            characters = sum(map(len, load.expected.texts.values()))
            stage.add(case, OURS.name, DELTA, drained.seconds / (characters / len(FOUR_CHARACTERS)) * 1e6)
