"""Limit the times in entry ids to the present: producers may choose the ids of their entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.core.response import FinishedPart

if TYPE_CHECKING:
    from handlers.core.response import Resolution

_TOLERANCE_MS = 1000
"""Milliseconds that an id may be ahead of the estimated server time: the error of that estimate."""


def at_most_now(ms: int, now_ms: int) -> int:
    """Return `ms`, a time in an entry's id, or `now_ms` if `ms` is more than a second later."""
    return ms if ms <= now_ms + _TOLERANCE_MS else now_ms


def limit_times_to_now(resolution: Resolution, now_ms: int) -> Resolution:
    """Replace each time of a resolution that is more than a second after `now_ms` by `now_ms`, in place.

    Times are in milliseconds since the epoch; entry ids stay unchanged. Return the same resolution.
    """
    last = now_ms + _TOLERANCE_MS
    resolution.closed = [
        _limit_times_of_part(each, now_ms)
        if isinstance(each, FinishedPart)
        and (each.finished_ms > last or each.started_ms > last or each.contradiction)
        else each
        for each in resolution.closed
    ]
    resolution.ends = [end._replace(at_ms=now_ms) if end.at_ms > last else end for end in resolution.ends]
    resolution.contradictions = [
        each._replace(at_ms=at_most_now(each.at_ms, now_ms)) for each in resolution.contradictions
    ]
    return resolution


def _limit_times_of_part(part: FinishedPart, now_ms: int) -> FinishedPart:
    contradiction = part.contradiction
    return part._replace(
        started_ms=at_most_now(part.started_ms, now_ms),
        finished_ms=at_most_now(part.finished_ms, now_ms),
        contradiction=contradiction
        and contradiction._replace(at_ms=at_most_now(contradiction.at_ms, now_ms)),
    )
