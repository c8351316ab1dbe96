"""When is a text finished, and with what?

A part is closed by the first entry of the stream that closes it and leaves it with a text: its own
`.done`, its part's or item's copy, or the end of its response. (One that says nothing, of a part that
has no deltas yet, is only remembered: a later copy may know the text.) What came in later entries is
late and changes nothing; what ends an item or a response closes only what began before it. So the
result depends on the stream alone, however it was cut into batches.

Entries before the closing one may still be in another worker's hands, for some milliseconds. Therefore a
closed part waits until the group's low-water mark has passed the closing entry. If that worker is stuck,
or dead, only the texts in doubt wait for it: what is certain without it (the authoritative text equals
the joined, numbered deltas, and it is known whose text it is) is finished at once.

No text is ever revised. Another authoritative text that comes for a part, whenever it comes, contradicts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from deltaloom.reasons import reason_class
from handlers.core.assembly import Assembly, assemble
from handlers.core.context import context_of
from handlers.core.contradictions import contradiction_of, contradictions_of_finished
from handlers.core.effects import Context, Copy, Ending, Note, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.state import concerns
from handlers.core.text import repair

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deltaloom.messages import Integrity, IntegritySource, Kind, Status
    from deltaloom.reasons import ReasonClass
    from handlers.core.contradictions import Contradiction
    from handlers.core.log import PartLog
    from handlers.core.state import LowWater, ResponseState

IDLE_TIMEOUT = "idle_timeout"
"""The reason of a text that was abandoned because nothing came any more."""

OPEN_LIMIT = "open_limit"
"""The reason of one that was abandoned because too many were open, and it was silent the longest."""


class FinishedPart(NamedTuple):
    """A part as it ended."""

    part: PartKey
    assembly: Assembly
    status: Status
    reason: str | None
    integrity: Integrity
    item_id: str | None
    context: Context
    started_ms: int
    finished_ms: int
    late: int = 0
    """Fragments that came after the entry that closed it."""
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    integrity_source: IntegritySource | None = None
    contradiction: Contradiction | None = None


class ResponseEnd(NamedTuple):
    """How a response ended, as one event says. There may be two: an `error`, then `response.failed`."""

    stream_key: StreamKey
    status: Status
    reason: str | None
    context: Context
    at_ms: int
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    has_refusal: bool = False
    """True if a part of the response is a refusal: its alerts say what an alert about the end would."""


@dataclass(slots=True)
class Resolution:
    """What can be said of a response now."""

    finished: list[FinishedPart] = field(default_factory=list)
    spent: list[Arrival] = field(default_factory=list)
    """Endings that have closed whatever began before them."""
    ended: bool = False
    """The response has ended, or is given up."""
    ends: list[ResponseEnd] = field(default_factory=list)
    """How, the first one first."""
    contradictions: list[Contradiction] = field(default_factory=list)
    """Texts in the response's final copy that differ from those of parts finished before."""
    doubtful_since: EntryId | None = None
    """The earliest entry that closed something which is still in doubt."""


class _StatedText(NamedTuple):
    """The text of a part as a closing, or the response's final copy, gives it."""

    rank: Rank
    text: str
    note: Note = Note()


class _Close(NamedTuple):
    """The entry that closes a part, with the text that it gives."""

    entry: EntryId
    ending: Ending | None
    """The response's end, if that closes the part."""
    stated: _StatedText

    @property
    def own(self) -> bool:
        """Return whether the part or its item has the text, not only the response's final copy."""
        return self.stated.rank is not Rank.RESPONSE


def resolve(
    state: ResponseState, low_water: LowWater, *, idle_at_ms: int | None = None, why: str = IDLE_TIMEOUT
) -> Resolution:
    """Finish what can be finished.

    Args:
        state: what is stored of the response; read after `low_water` was.
        low_water: how far the group had come.
        idle_at_ms: server time, if everything that is open is given up.
        why: the reason for that.
    """
    result = Resolution(ended=idle_at_ms is not None)
    copied: dict[PartKey, FinishedPart] = {}
    shown = {part.kind for part in state.finished_parts}
    result.contradictions = contradictions_of_finished(state, low_water)
    for arrival, ending in sorted(state.endings.items()):
        if not low_water.passed(arrival.entry):
            _doubt(result, arrival.entry)
        elif ending.output_index is None:
            copied |= {
                each.part: each for each in _only_in_final_copy(state, low_water, arrival, ending, shown)
            }
            result.ended = True
            result.ends.append(_end(state, arrival, ending, copied))
    for part, log in state.open_parts.items():
        if part in copied:  # it began when it was closed already
            continue
        close = _close(state, part, log)
        if close is None:
            if idle_at_ms is not None:
                result.finished.append(_abandoned(state, low_water, part, log, idle_at_ms, why))
            continue
        finished = _finished(state, low_water, part, log, close)
        if low_water.passed(close.entry) or (low_water.stalled and _is_certain(state, log, close, finished)):
            result.finished.append(finished)
        else:
            _doubt(result, close.entry)
    result.finished += copied.values()
    if idle_at_ms is not None and all(ending.output_index is not None for ending in state.endings.values()):
        context = context_of(state.registers)
        result.ends.append(
            ResponseEnd(state.stream_key, "abandoned", why, context, idle_at_ms, reason_class(why))
        )
    still_open = set(state.open_parts) - {finished.part for finished in result.finished}
    result.spent = [
        arrival
        for arrival, ending in state.endings.items()
        if low_water.passed(arrival.entry)
        and not any(concerns(arrival, ending, part, state.open_parts[part]) for part in still_open)
    ]
    return result


def _end(state: ResponseState, arrival: Arrival, ending: Ending, copied: Iterable[PartKey]) -> ResponseEnd:
    """Return how a response ended; `copied` are the parts that only final copies had until then."""
    return ResponseEnd(
        state.stream_key,
        ending.status,
        ending.reason,
        context_of(state.registers, arrival.entry),
        arrival.entry.ms,
        ending.reason_class,
        ending.provider_category,
        ending.provider_explanation,
        state.has_refusal(arrival.entry) or any(part.kind == "refusal" for part in copied),
    )


def _is_certain(state: ResponseState, log: PartLog, close: _Close, finished: FinishedPart) -> bool:
    """Whether nothing that is still to come of earlier entries could change a text, or what is said of it.

    Before the response's final copy an entry may still come that ends the item and has no text: then nothing
    confirms the deltas, whatever the copy says. Where item ids differ, the text has the first event's,
    which may still come although its producer has sent it again meanwhile. And of a part that began after its
    response had ended, that end's final copy may already have the text.
    """
    confirmed = finished.integrity == "verified" and close.own and finished.assembly.numbered
    known = confirmed and not log.ids_differ and state.context_known(close.entry)
    return known and not state.has_ended(before=log.began)


def _doubt(result: Resolution, entry: EntryId) -> None:
    if result.doubtful_since is None or entry < result.doubtful_since:
        result.doubtful_since = entry


def _close(state: ResponseState, part: PartKey, log: PartLog) -> _Close | None:
    """The first entry that closes the part and leaves it with a text; None if it is still open."""
    texts, items, terminals = _closings_by_entry(state, part, log)
    own_end = False
    for entry in sorted({*texts, *items, *terminals}):
        texts_here = sorted(texts.get(entry, []), key=lambda each: (each.rank, each.text))
        terminal = terminals.get(entry)
        own_end = own_end or entry in items or any(each.rank is not Rank.RESPONSE for each in texts_here)
        stated = (
            next((each for each in texts_here if each.text), None)
            or next((each for each in texts_here if each.note.checksum), None)
            or next((each for each in texts_here if each.note.redacted), _StatedText(Rank.RESPONSE, ""))
        )
        if stated.text or terminal or stated.note.redacted or log.says_something_until(entry):
            return _Close(entry, None if own_end else terminal, stated)
    return None


def _closings_by_entry(
    state: ResponseState, part: PartKey, log: PartLog
) -> tuple[dict[EntryId, list[_StatedText]], set[EntryId], dict[EntryId, Ending]]:
    """Return by entry the stated texts of the part, the ends of its item and the ends of its response."""
    texts: dict[EntryId, list[_StatedText]] = {}
    items: set[EntryId] = set()
    terminals: dict[EntryId, Ending] = {}
    for arrival, rank, text in log.closings:
        stated = _StatedText(rank, text, state.notes.get(arrival, Note()))
        texts.setdefault(arrival.entry, []).append(stated)
    for arrival, ending in sorted(state.endings.items()):
        if not concerns(arrival, ending, part, log):
            continue
        if ending.output_index is not None:
            items.add(arrival.entry)
            continue
        terminals.setdefault(arrival.entry, ending)
        copy = _copy_of(part, log, ending)
        if copy is not None:
            texts.setdefault(arrival.entry, []).append(_StatedText(Rank.RESPONSE, copy.text))
    return texts, items, terminals


def _copy_of(part: PartKey, log: PartLog, ending: Ending) -> Copy | None:
    """What the final copy has of a part.

    Its item's id says so where the copy has that id once; else its position does. (Some servers count
    `output_index` from 1, others give new ids in the copy, or use one twice.) Only the part and the copy
    count, not what else is open: that depends on who was faster.
    """
    at = {copy.position for copy in ending.copies if copy.item_id is not None and copy.item_id == log.item_id}
    place = (at.pop() if len(at) == 1 else part.output_index, part.content_index, part.kind)
    copies = (copy for copy in ending.copies if (copy.position, copy.content_index, copy.kind) == place)
    return next(copies, None)


def _only_in_final_copy(
    state: ResponseState, low_water: LowWater, arrival: Arrival, ending: Ending, shown: set[Kind]
) -> list[FinishedPart]:
    """Texts that nothing but the response's final copy has.

    Only of a kind the response showed no other part of (`shown`, which grows): the copy's positions are no
    proof that a text is a new one, and nothing may come twice.
    """
    shown |= {part.kind for part, log in state.open_parts.items() if log.began <= arrival.entry}
    only_here = [
        _copied(state, low_water, arrival, ending, copy)
        for copy in ending.copies
        if copy.text and copy.kind not in shown
    ]
    shown |= {finished.part.kind for finished in only_here}
    return only_here


def _copied(
    state: ResponseState, low_water: LowWater, arrival: Arrival, ending: Ending, copy: Copy
) -> FinishedPart:
    """Return the finished part that a final copy's text makes."""
    part = PartKey(state.stream_key, copy.position, copy.content_index, copy.kind)
    text = repair(copy.text)
    contradiction = contradiction_of(state, low_water, part, text, since=arrival.entry)
    return FinishedPart(
        part,
        assemble(())._replace(text=text),
        ending.status,
        ending.reason,
        "repaired",
        copy.item_id,
        context_of(state.registers, arrival.entry),
        arrival.entry.ms,
        arrival.entry.ms,
        _late(state, part, arrival),
        ending.reason_class,
        ending.provider_category,
        ending.provider_explanation,
        "provider",
        contradiction,
    )


def _late(state: ResponseState, part: PartKey, arrival: Arrival) -> int:
    """Fragments of a part that came after its text."""
    log = state.open_parts.get(part)
    return 0 if log is None else log.assembled(arrival.entry)[1]


def _finished(
    state: ResponseState, low_water: LowWater, part: PartKey, log: PartLog, close: _Close
) -> FinishedPart:
    joined, late = log.assembled(close.entry)
    stated, ending = close.stated, close.ending
    text, integrity = _judged(joined.text, stated, lost=state.has_loss(close.entry))
    return FinishedPart(
        part,
        joined._replace(text=text),
        "completed" if ending is None else ending.status,
        None if ending is None else ending.reason,
        integrity,
        log.item_id_until(close.entry),
        context_of(state.registers, close.entry),
        log.began.ms,
        close.entry.ms,
        late,
        None if ending is None else ending.reason_class,
        None if ending is None else ending.provider_category,
        None if ending is None else ending.provider_explanation,
        stated.note.source if stated.text or stated.note.checksum else None,
        contradiction_of(state, low_water, part, text, since=log.began),
    )


def _judged(joined: str, stated: _StatedText, *, lost: bool) -> tuple[str, Integrity]:
    """Return a part's text, and how far to trust it; `lost`: its producer has reported a loss."""
    text, checksum = repair(stated.text), stated.note.checksum
    if text:
        return text, "verified" if text == joined and not lost else "repaired"
    if stated.note.redacted and not joined:
        return "", "redacted"
    verified = checksum is not None and checksum.fits(joined) and not lost
    return joined, "verified" if verified else "unverified"


def _abandoned(
    state: ResponseState, low_water: LowWater, part: PartKey, log: PartLog, now_ms: int, why: str
) -> FinishedPart:
    # Its end may have come without any text, from a server that says nothing: then it did complete.
    texts, items, _ = _closings_by_entry(state, part, log)
    ended = min({*texts, *items}, default=None)
    joined = log.assembled()[0]
    return FinishedPart(
        part,
        joined,
        "abandoned" if ended is None else "completed",
        why if ended is None else None,
        "unverified",
        log.item_id,
        context_of(state.registers),
        log.began.ms,
        now_ms if ended is None else ended.ms,
        reason_class=reason_class(why) if ended is None else None,
        contradiction=contradiction_of(state, low_water, part, joined.text, since=log.began),
    )
