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
    """An authoritative text of a part, from a closing or a final copy; empty if the event gives no text."""

    rank: Rank
    text: str
    note: Note = NO_NOTE
    misplaced: bool = False
    """True if the text comes from an item's ending that lists it at another place than the part's."""


class Close(NamedTuple):
    """An event that closes a part, with the text that it gives."""

    at: Arrival
    ending: Ending | None
    """The response's ending, if nothing else ended the part.

    None if a closing of the part came before it or in the same event, or an end of the item did, since the
    part began.
    """
    stated: StatedText

    @property
    def own(self) -> bool:
        """True if a closing of the part gives the text, or its item's ending at the part's own place.

        The checksum of a text, or a mark that it is redacted, counts as the text. False if only a final copy
        or a misplaced copy gives the text, or if no event does.
        """
        return self.stated.rank is not Rank.RESPONSE and not self.stated.misplaced


def close_of(timeline: Timeline, part: PartKey, log: PartLog) -> Close | None:
    """Return the first event that closes a part, with the text it gives; None if the part stays open.

    The low-water mark is not considered: an earlier close may still be pending. Candidates are the part's
    closings, the first end of its item after a non-empty delta, and the first end of the response since the
    part began. The end of the response always closes the part. The others close it only if they give a text
    or mark it as redacted, or if a non-empty delta came before them; a checksum alone is not enough.
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
            # The item's end gives no text of its own. For an empty list, `_best` returns the rank
            # RESPONSE, so `Close.own` is False and the text is never certain.
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
    """Return the arrival of the first closing of a part, or of the end of its item, whichever is earlier.

    An end of the item counts if it came since the part began. Return None if neither came. Call the function
    only for a part for which `close_of` returns None; a delta may have come after the returned arrival.
    """
    item_end = timeline.item_end_from(part.output_index, log.began)
    ends = [closing.arrival for closing in log.closings]
    return min(ends if item_end is None else [*ends, item_end], default=None)


_precedence = attrgetter("rank", "text")


def _best(stated: list[StatedText]) -> StatedText:
    """Return the stated text that decides, among those that one event gives.

    `stated` is sorted by rank, then by text. The first with a text decides; else the first with a checksum;
    else the first redacted one. If there is none of these, return an empty text of rank `RESPONSE`.
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
    """Return the copy of a part in the final copy that arrived at `response_end`; None if there is none.

    A text at the part's place counts first, by item id if the copies have it, else by output index. Without
    one, the only text of the part's kind in the final copy counts if the response had no other part of the
    kind by then (a finished one counts even if it began later). Without that too, return the copy at the
    part's place, if any: its text is empty.
    """
    copies = timeline.copies(response_end)
    copy = copies.of(part, log.item_id)
    if copy is not None and copy.text:
        return copy
    sole = copies.sole(part.kind)
    return sole if sole is not None and timeline.is_only_part(part, response_end) else copy
