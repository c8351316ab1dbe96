"""Schedule the publication of entries in the rhythm of a model, with pauses after sentences."""

from __future__ import annotations

import zlib
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from demo.stream import Line, Stream

_BREATH = 3.0
"""Length of a pause after a sentence, in deltas."""


class Publication(NamedTuple):
    """An entry of the input stream, with its time."""

    at: float
    """Seconds after the beginning of the programme, at pace 1."""
    lines: tuple[Line, ...]
    body: str
    """Contents of the field `event`: an event, or an array of events."""


def publications(stream: Stream) -> list[Publication]:
    """Return a stream's entries with their times: irregular, but the same every time."""
    plan = stream.plan
    first = next(number for number, line in enumerate(stream.lines) if line.part)
    weights = [_weight(stream, number) if number > first else 0.0 for number in range(len(stream.lines))]
    second = plan.speaks / sum(weights)
    starts = plan.begins + plan.thinks
    times = [
        plan.begins if number < first else starts + passed * second
        for number, passed in enumerate(accumulate(weights))
    ]
    groups = [slice(number, number + 1) for number in range(first)]
    groups += [slice(number, number + plan.coalesce) for number in range(first, len(times), plan.coalesce)]
    return [
        Publication(times[group][-1], stream.lines[group], _body(stream.lines[group])) for group in groups
    ]


def _weight(stream: Stream, number: int) -> float:
    """Return the relative wait before a line: 0 unless it is a delta, longer after a sentence."""
    line, before = stream.lines[number], stream.lines[number - 1]
    if line.part is None and not line.broken:
        return 0.0
    jitter = zlib.crc32(f"{stream.name} {number}".encode()) % 1000 / 1000
    return 0.5 + jitter + (_BREATH if before.delta.endswith((".", "?", "\n\n")) else 0.0)


def _body(lines: tuple[Line, ...]) -> str:
    if len(lines) == 1:
        return lines[0].raw
    return "[" + ",".join(line.raw for line in lines) + "]"
