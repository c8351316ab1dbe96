"""How far the times in entry ids are believed: a producer may choose its entries' ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.core.response import FinishedPart

if TYPE_CHECKING:
    from handlers.core.response import Resolution

_TOLERANCE_MS = 1000
"""Milliseconds that an id may be ahead: how well the server's time is known here."""


def believed(ms: int, now_ms: int) -> int:
    """Return the time of an entry, or the server's time now if the entry claims to come from the future."""
    return ms if ms <= now_ms + _TOLERANCE_MS else now_ms


def with_believed_times(resolution: Resolution, now_ms: int) -> Resolution:
    """Return what can be said of a response, with none of its times in the future."""
    resolution.closed = [
        _with_believed_times(each, now_ms) if isinstance(each, FinishedPart) else each
        for each in resolution.closed
    ]
    resolution.ends = [end._replace(at_ms=believed(end.at_ms, now_ms)) for end in resolution.ends]
    resolution.contradictions = [
        each._replace(at_ms=believed(each.at_ms, now_ms)) for each in resolution.contradictions
    ]
    return resolution


def _with_believed_times(part: FinishedPart, now_ms: int) -> FinishedPart:
    said = part.contradiction
    return part._replace(
        started_ms=believed(part.started_ms, now_ms),
        finished_ms=believed(part.finished_ms, now_ms),
        contradiction=said and said._replace(at_ms=believed(said.at_ms, now_ms)),
    )
