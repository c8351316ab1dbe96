"""The event that closes a part, and the text that this event gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from handlers.core.effects import Note, Rank

if TYPE_CHECKING:
    from handlers.core.effects import Copy, Ending
    from handlers.core.identity import Arrival, PartKey
    from handlers.core.log import PartLog
    from handlers.core.timeline import Timeline


class StatedText(NamedTuple):
    """The text of a part as a closing, or the response's final copy, gives it."""

    rank: Rank
    text: str
    note: Note = Note()
    misplaced: bool = False
    """The item's copy has it at another place than the part's."""


class Close(NamedTuple):
    """The event that closes a part, with the text that it gives."""

    at: Arrival
    ending: Ending | None
    """The response's end, if that closes the part."""
    stated: StatedText

    @property
    def own(self) -> bool:
        """Return whether the part or its item has the text at its place, not only a copy elsewhere."""
        return self.stated.rank is not Rank.RESPONSE and not self.stated.misplaced


def close_of(timeline: Timeline, part: PartKey, log: PartLog) -> Close | None:
    """Return the first event that closes a part and leaves it with a text; None if the part is open."""
    stated: dict[Arrival, list[StatedText]] = {}
    for arrival, rank, text in log.closings:
        note = timeline.state.notes.get(arrival, Note())
        stated.setdefault(arrival, []).append(StatedText(rank, text, note))
    terminal = timeline.terminal_from(log.began)
    if terminal is not None:
        copy = _final_copy(timeline, part, log, terminal[0])
        stated.setdefault(terminal[0], []).append(
            StatedText(Rank.RESPONSE, "" if copy is None else copy.text)
        )
    item_end = timeline.item_end_from(part.output_index, log.began)
    speaks = log.speaks_since
    if item_end is not None and speaks is not None:
        closing_end = timeline.item_end_from(part.output_index, max(log.began, speaks))
        if closing_end is not None:
            stated.setdefault(closing_end, [])
    own = False
    for arrival in sorted(stated):
        here = sorted(stated[arrival], key=lambda each: (each.rank, each.text))
        own = own or (item_end is not None and item_end <= arrival)
        own = own or any(each.rank is not Rank.RESPONSE for each in here)
        best = _best(here)
        ends = terminal is not None and terminal[0] == arrival
        if best.text or ends or best.note.redacted or (speaks is not None and speaks <= arrival):
            ending = terminal[1] if terminal is not None and ends and not own else None
            return Close(arrival, ending, best)
    return None


def ended_without_text(timeline: Timeline, part: PartKey, log: PartLog) -> Arrival | None:
    """Return the first closing of a part, or end of its item, of a part that no event leaves with a text."""
    item_end = timeline.item_end_from(part.output_index, log.began)
    ends = [closing.arrival for closing in log.closings]
    return min(ends if item_end is None else [*ends, item_end], default=None)


def _best(stated: list[StatedText]) -> StatedText:
    """Return the text that counts of those that one event gives."""
    return (
        next((each for each in stated if each.text), None)
        or next((each for each in stated if each.note.checksum), None)
        or next((each for each in stated if each.note.redacted), StatedText(Rank.RESPONSE, ""))
    )


def _final_copy(timeline: Timeline, part: PartKey, log: PartLog, terminal: Arrival) -> Copy | None:
    """Return the copy of a part in the response's end.

    A text that is the only one of its kind, in the copy as in the response, needs no place.
    """
    copies = timeline.copies(terminal)
    copy = copies.of(part, log.item_id)
    if copy is not None and copy.text:
        return copy
    sole = copies.sole(part.kind)
    return sole if sole is not None and timeline.shows_only(part, terminal) else copy
