"""Contradictions: another authoritative text for a part. No text is ever revised, so an alert tells people.

Any authoritative text that differs from the one that came out counts, whenever it comes: in a closing, as a
checksum, or in the response's final copy.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.context import context_of
from handlers.core.effects import Note
from handlers.core.text import repair, sha256_digest, text_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from handlers.core.effects import Context, Copy, Ending
    from handlers.core.identity import Arrival, EntryId, PartKey
    from handlers.core.state import LowWater, ResponseState


class Contradiction(NamedTuple):
    """Another authoritative text of a part than the one that came out."""

    part: PartKey
    text: str
    """Empty where only its checksum is known."""
    item_id: str | None
    context: Context
    at_ms: int


def contradiction_of(
    state: ResponseState, low_water: LowWater, part: PartKey, text: str, *, since: EntryId
) -> Contradiction | None:
    """Return the earliest authoritative text of a part that differs from this one.

    Args:
        state: the stored state of the response.
        low_water: how far the group had come. A final copy beyond it is compared later: another text of the
            kind may still come from before it.
        part: the part.
        text: the text that comes out.
        since: the entry with which the part began; earlier final copies do not contradict it.
    """
    log = state.open_parts.get(part)
    found: list[tuple[Arrival, str, str | None]] = []
    if log is not None:
        for arrival, _, said in log.closings:
            checksum = None if said else state.notes.get(arrival, Note()).checksum
            # Compare digests only: nothing else is remembered of the text of a finished part.
            differs = checksum is not None and sha256_digest(checksum.sha256) != text_digest(text)
            if (said and repair(said) != text) or differs:
                found.append((arrival, said, None))  # as of a finished part, whose item id is forgotten
    for arrival, ending in state.endings.items():
        if since <= arrival.entry and low_water.passed(arrival.entry):
            other = _other_copy(state, part, arrival, ending, text.__eq__)
            if other is not None:
                found.append((arrival, other.text, other.item_id))
    return _earliest(state, part, found)


def contradictions_of_finished(state: ResponseState, low_water: LowWater) -> list[Contradiction]:
    """Return the texts in final copies that differ from those of parts that were finished before."""
    found = []
    for part, digest in state.finished_parts.items():
        if digest is not None:
            copies = [
                (arrival, other.text, other.item_id)
                for arrival, ending in state.endings.items()
                if low_water.passed(arrival.entry)
                and (other := _other_copy(state, part, arrival, ending, partial(_has_digest, digest)))
            ]
            found.append(_earliest(state, part, copies))
    return [contradiction for contradiction in found if contradiction is not None]


def _has_digest(digest: str, text: str) -> bool:
    return text_digest(text) == digest


def _other_copy(
    state: ResponseState, part: PartKey, arrival: Arrival, ending: Ending, is_known: Callable[[str], bool]
) -> Copy | None:
    """Return a final copy's text of a part, if it is another one.

    The position alone is no proof, since some servers count from 1. So only a text that is the only one of
    its kind counts, in the copy as in the response until then. A part without a text, as one that was
    redacted, is contradicted by no final copy.
    """
    alike = [copy for copy in ending.copies if copy.kind == part.kind and copy.text]
    if len(alike) != 1 or is_known(""):
        return None
    began = (other for other, log in state.open_parts.items() if log.began <= arrival.entry)
    if any(other.kind == part.kind and other != part for other in chain(state.finished_parts, began)):
        return None
    (copy,) = alike
    same_place = (copy.position, copy.content_index) == (part.output_index, part.content_index)
    return copy if same_place and not is_known(repair(copy.text)) else None


def _earliest(
    state: ResponseState, part: PartKey, found: Iterable[tuple[Arrival, str, str | None]]
) -> Contradiction | None:
    arrival, text, item_id = min(found, default=(None, "", None), key=lambda each: each[0])
    if arrival is None:
        return None
    context = context_of(state.registers, arrival.entry)
    return Contradiction(part, repair(text), item_id, context, arrival.entry.ms)
