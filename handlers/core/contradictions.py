"""Find contradictions: authoritative texts that differ from the text of a finished part.

A finished text is never revised, so a contradiction raises an alert. The text of a closing, the checksum of
a closing, or a text in the response's final copy may contradict, whenever it comes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.context import context_of
from handlers.core.effects import NO_NOTE
from handlers.core.text import repair, sha256_digest, text_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from handlers.core.effects import ContextValues
    from handlers.core.identity import Arrival, PartKey
    from handlers.core.state import ResponseState
    from handlers.core.timeline import Timeline


class Contradiction(NamedTuple):
    """An authoritative text of a part that differs from its finished text."""

    part: PartKey
    text: str
    """The other text; empty if only its checksum is known."""
    item_id: str | None
    """Item id next to the text in a final copy; None if it has none, or if a closing gives the text."""
    context: ContextValues
    """Context of the response up to the entry that gives the other text."""
    at_ms: int
    """Time of this entry in milliseconds since the epoch."""


def contradiction_of(timeline: Timeline, part: PartKey, text: str, *, since: Arrival) -> Contradiction | None:
    """Return the contradiction by the earliest authoritative text of a part that differs from `text`.

    Return None if there is none. All stored closings of the part are compared. Final copies are compared only
    if `text` is not empty and the low-water mark has passed them. The text in a final copy must be at the
    part's place and be the only one of its kind in that copy, and the response may have no other part of the
    kind by then (a finished one counts even if it began later).

    Args:
        timeline: the stored state of the response.
        part: the part.
        text: the finished text of the part, repaired.
        since: the event with which the part began; earlier final copies are ignored.
    """
    state = timeline.state
    log = state.open_parts.get(part)
    found: list[Other] = []
    if log is not None:
        for arrival, _, stated in log.closings:
            checksum = None if stated else state.notes.get(arrival, NO_NOTE).checksum
            # Digests, as for a finished part, of which only the digest is stored.
            differs = checksum is not None and sha256_digest(checksum.sha256) != text_digest(text)
            if (stated and repair(stated) != text) or differs:
                found.append(Other(arrival, stated))  # no item id: a finished part has none stored
    if text:
        found += [other for other in _other_copies(timeline, part, text.__eq__) if since <= other.arrival]
    return earliest(state, part, found) if found else None


def contradictions_of_finished(timeline: Timeline) -> list[Contradiction]:
    """Return the contradictions of finished parts: at most one for each, by the earliest copy that differs.

    Parts without a text or a stored digest are skipped. A final copy is compared only if the low-water mark
    has passed it, and if its only non-empty text of the part's kind is at the part's place. The response may
    have no other part of the kind that is finished, even later, or that is open and began by then.
    """
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
    """A text that differs from the finished text of a part, and the event that gives it.

    The text is not repaired. It is empty if only its checksum is known.
    """

    arrival: Arrival
    text: str
    item_id: str | None = None


def _other_copies(timeline: Timeline, part: PartKey, is_known: Callable[[str], bool]) -> Iterator[Other]:
    """Yield the texts of a response's final copies that contradict the finished text of a part.

    Only final copies that the low-water mark has passed count. The index in a final copy is not enough to
    identify a part: some servers count from 1. So a text at the part's place is compared only if it is the
    only one of its kind in the copy, and if the response had no other part
    of the kind by then (a finished one counts even if it began later).

    `is_known` returns whether a repaired text equals the finished text. Callers skip parts without a text,
    such as redacted ones: a final copy does not contradict them.
    """
    for arrival, copy in timeline.sole_copies(part):
        if timeline.is_only_part(part, arrival) and not is_known(repair(copy.text)):
            yield Other(arrival, copy.text, copy.item_id)


def earliest(state: ResponseState, part: PartKey, others: Iterable[Other]) -> Contradiction | None:
    """Return a contradiction of a part by the first to arrive of `others`; None if there are none.

    Its text is repaired, and its context is that of the response up to the entry of this text.
    """
    first = min(others, default=None, key=lambda other: other.arrival)
    if first is None:
        return None
    context = context_of(state.registers, first.arrival.entry)
    return Contradiction(part, repair(first.text), first.item_id, context, first.arrival.entry.ms)
