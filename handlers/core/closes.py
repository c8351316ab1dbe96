"""Find the event that closes a part, and the text that this event gives."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.effects import NO_NOTE, Note, Rank

if TYPE_CHECKING:
    from handlers.core.effects import Copy, Ending
    from handlers.core.identity import Arrival, PartKey
    from handlers.core.part_log import PartLog
    from handlers.core.timeline import Timeline


class StatedText(NamedTuple):
    """An authoritative text of a part (may be empty): from a closing, or from the response's final copy."""

    rank: Rank
    text: str
    note: Note = NO_NOTE
    misplaced: bool = False
    """True if the item's copy lists the text at another place than the part's."""


class Close(NamedTuple):
    """An event that closes a part, with the text that it gives."""

    at: Arrival
    ending: Ending | None
    """The end of the response that closes the part; None if the part or its item had ended by then."""
    stated: StatedText

    @property
    def own(self) -> bool:
        """Return whether the text comes from the part itself, or from its item at the part's place."""
        return self.stated.rank is not Rank.RESPONSE and not self.stated.misplaced


def close_of(timeline: Timeline, part: PartKey, log: PartLog) -> Close | None:
    """Return the first event that closes a part and leaves it with a text; None if the part stays open.

    Candidates are the part's closings, the first end of its item after a non-empty delta, and the first end
    of the response. The part has a text if the event gives one or marks it as redacted, or if a non-empty
    delta came by then. The end of the response closes the part in any case.
    """
    stated: dict[Arrival, list[StatedText]] = {}
    for arrival, rank, text in log.closings:
        note = timeline.state.notes.get(arrival, NO_NOTE)
        stated.setdefault(arrival, []).append(StatedText(rank, text, note))
    response_end = timeline.response_end_from(log.began)
    if response_end is not None:
        copy = _final_copy(timeline, part, log, response_end[0])
        stated.setdefault(response_end[0], []).append(
            StatedText(Rank.RESPONSE, "" if copy is None else copy.text)
        )
    item_end = timeline.item_end_from(part.output_index, log.began)
    first_text = log.first_text
    if item_end is not None and first_text is not None:
        closing_end = timeline.item_end_from(part.output_index, max(log.began, first_text))
        if closing_end is not None:
            # The item's end gives no text of its own: rank RESPONSE (in `_best`) makes it never certain.
            stated.setdefault(closing_end, [])
    ended_itself = False  # a closing or the end of the item came by then
    for arrival in sorted(stated):
        here = stated[arrival]
        here.sort(key=_precedence)
        ended_itself = ended_itself or (item_end is not None and item_end <= arrival)
        ended_itself = ended_itself or (bool(here) and here[0].rank is not Rank.RESPONSE)
        best = _best(here)
        ends = response_end is not None and response_end[0] == arrival
        if best.text or ends or best.note.redacted or (first_text is not None and first_text <= arrival):
            ending = response_end[1] if response_end is not None and ends and not ended_itself else None
            return Close(arrival, ending, best)
    return None


def ended_without_text(timeline: Timeline, part: PartKey, log: PartLog) -> Arrival | None:
    """Return the first closing of a part, or the end of its item, if earlier. None if neither came.

    For parts without a text: `close_of` has returned None.
    """
    item_end = timeline.item_end_from(part.output_index, log.began)
    ends = [closing.arrival for closing in log.closings]
    return min(ends if item_end is None else [*ends, item_end], default=None)


_precedence = attrgetter("rank", "text")


def _best(stated: list[StatedText]) -> StatedText:
    """Return the stated text that counts among those of one event, sorted by rank.

    A text goes before a checksum, a checksum before a redaction; then the best rank counts.
    """
    for each in stated:
        if each.text:
            return each
    return (
        next((each for each in stated if each.note.checksum), None)
        or next((each for each in stated if each.note.redacted), None)
        or StatedText(Rank.RESPONSE, "")
    )


def _final_copy(timeline: Timeline, part: PartKey, log: PartLog, response_end: Arrival) -> Copy | None:
    """Return the copy of a part in an end of the response; None if it lists none.

    The place may differ if the copy has only one text of the part's kind, and the response only one part.
    """
    copies = timeline.copies(response_end)
    copy = copies.of(part, log.item_id)
    if copy is not None and copy.text:
        return copy
    sole = copies.sole(part.kind)
    return sole if sole is not None and timeline.is_only_part(part, response_end) else copy
