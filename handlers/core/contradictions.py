"""Contradictions: another authoritative text for a part. No text is ever revised, so an alert tells people.

Any authoritative text that differs from the one that came out counts, whenever it comes: in a closing, as a
checksum, or in the response's final copy.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.context import context_of
from handlers.core.effects import Note
from handlers.core.text import repair, sha256_digest, text_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from handlers.core.effects import Context
    from handlers.core.identity import Arrival, PartKey
    from handlers.core.state import ResponseState
    from handlers.core.timeline import Timeline


class Contradiction(NamedTuple):
    """Another authoritative text of a part than the one that came out."""

    part: PartKey
    text: str
    """Empty where only its checksum is known."""
    item_id: str | None
    context: Context
    at_ms: int


def contradiction_of(timeline: Timeline, part: PartKey, text: str, *, since: Arrival) -> Contradiction | None:
    """Return the earliest authoritative text of a part that differs from this one.

    Args:
        timeline: the stored state of the response.
        part: the part.
        text: the text that comes out.
        since: the event with which the part began; earlier final copies do not contradict it.
    """
    state = timeline.state
    log = state.open_parts.get(part)
    found: list[Other] = []
    if log is not None:
        for arrival, _, said in log.closings:
            checksum = None if said else state.notes.get(arrival, Note()).checksum
            # Compare digests only: nothing else is remembered of the text of a finished part.
            differs = checksum is not None and sha256_digest(checksum.sha256) != text_digest(text)
            if (said and repair(said) != text) or differs:
                found.append(Other(arrival, said))  # as of a finished part, whose item id is forgotten
    if text:
        found += (other for other in _other_copies(timeline, part, text.__eq__) if since <= other.arrival)
    return earliest(state, part, found)


def contradictions_of_finished(timeline: Timeline) -> list[Contradiction]:
    """Return the texts in final copies that differ from those of parts that were finished before."""
    found = []
    for part, digest in timeline.state.finished_parts.items():
        if digest is not None and digest != _EMPTY:
            others = _other_copies(timeline, part, partial(_has_digest, digest))
            found.append(earliest(timeline.state, part, others))
    return [contradiction for contradiction in found if contradiction is not None]


_EMPTY = text_digest("")


def _has_digest(digest: str, text: str) -> bool:
    return text_digest(text) == digest


class Other(NamedTuple):
    """Another text of a part."""

    arrival: Arrival
    text: str
    item_id: str | None = None


def _other_copies(timeline: Timeline, part: PartKey, is_known: Callable[[str], bool]) -> Iterator[Other]:
    """Yield the texts that final copies have of a part, where they are other ones.

    The position alone is no proof, since some servers count from 1. So only a text that is the only one of
    its kind counts, in the copy as in the response until then. A part without a text, as one that was
    redacted, is contradicted by no final copy.
    """
    for arrival, copy in timeline.sole_copies(part):
        if timeline.shows_only(part, arrival) and not is_known(repair(copy.text)):
            yield Other(arrival, copy.text, copy.item_id)


def earliest(state: ResponseState, part: PartKey, others: Iterable[Other]) -> Contradiction | None:
    """Return the contradiction of a part by the earliest of some other texts; None if there are none."""
    first = min(others, default=None, key=lambda other: other.arrival)
    if first is None:
        return None
    context = context_of(state.registers, first.arrival.entry)
    return Contradiction(part, repair(first.text), first.item_id, context, first.arrival.entry.ms)
