"""When to publish what: the rhythm of a model that thinks, speaks, and draws breath after a sentence."""

from __future__ import annotations

import zlib
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from service.demo.stream import Line, Stream

_BREATH = 3.0
"""A pause after a sentence, in deltas."""


class Publication(NamedTuple):
    """One entry of the input stream."""

    at: float
    """Seconds after the programme's beginning, at pace 1."""
    lines: tuple[Line, ...]
    body: str
    """The field `event`: an event, or an array of them."""


def publications(stream: Stream) -> list[Publication]:
    """A stream's entries with their times: the same every time, and never quite regular."""
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
    """How long to wait before a line: only before a delta, longer after a sentence."""
    line, before = stream.lines[number], stream.lines[number - 1]
    if line.part is None and not line.broken:
        return 0.0
    jitter = zlib.crc32(f"{stream.name} {number}".encode()) % 1000 / 1000
    return 0.5 + jitter + (_BREATH if before.delta.endswith((".", "?", "\n\n")) else 0.0)


def _body(lines: tuple[Line, ...]) -> str:
    if len(lines) == 1:
        return lines[0].raw
    return "[" + ",".join(line.raw for line in lines) + "]"
