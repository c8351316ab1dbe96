"""When is a text finished, and with what?

1. The first event that closes a part and leaves it with a text decides: its own `.done`, its part's or item's
   copy, or the end of its response. One that says nothing, of a part that has no deltas yet, is only
   remembered: a later copy may know the text.
2. What came later is late and changes nothing. What ends an item or a response closes only what began before
   it. Only the order of the events counts, also within an array: how they were cut into entries and batches
   does not.
3. A text that came whole, without deltas, may be a copy that stands at another place than its text. Such a
   copy makes no text of its own: see `handlers.core.copies`.
4. Events before the closing one may still be in another worker's hands, for some milliseconds. Therefore a
   closed part waits until the group's low-water mark has passed the closing entry. If that worker is stuck,
   or dead, only the texts in doubt wait for it: what is certain without it (the authoritative text equals
   the joined, numbered deltas, and it is known whose text it is) is finished at once.
5. No text is ever revised. Another authoritative text that comes for a part, whenever it comes, contradicts
   it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from deltaloom.reasons import reason_class
from handlers.core.assembly import Assembly, assemble
from handlers.core.closes import close_of, ended_without_text
from handlers.core.context import context_of
from handlers.core.contradictions import contradiction_of, contradictions_of_finished, earliest
from handlers.core.copies import Joined, KnownTexts, assign_item_copies, is_whole
from handlers.core.effects import Context, Copy, Ending
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.text import repair
from handlers.core.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from deltaloom.messages import Integrity, IntegritySource, Kind, Status
    from deltaloom.reasons import ReasonClass
    from handlers.core.closes import Close, StatedText
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
    """Fragments that came after the event that closed it."""
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    integrity_source: IntegritySource | None = None
    contradiction: Contradiction | None = None


class DroppedCopy(NamedTuple):
    """A part that is the copy of another: nothing comes out of it."""

    part: PartKey
    late: int = 0
    """Fragments that came after the event that closed it."""


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

    closed: list[FinishedPart | DroppedCopy] = field(default_factory=list)
    """In the order in which they were closed; a copy behind the text that it is of."""
    spent: list[Arrival] = field(default_factory=list)
    """Endings that have closed whatever began before them."""
    ended: bool = False
    """The response has ended, or is given up."""
    ends: list[ResponseEnd] = field(default_factory=list)
    """How, the first one first."""
    contradictions: list[Contradiction] = field(default_factory=list)
    """Texts in copies that differ from those of parts finished before."""
    doubtful_since: EntryId | None = None
    """The earliest entry that closed something which is still in doubt."""

    @property
    def finished(self) -> list[FinishedPart]:
        """The parts that came to an end."""
        return [each for each in self.closed if isinstance(each, FinishedPart)]

    @property
    def dropped(self) -> list[DroppedCopy]:
        """The copies of other parts: nothing comes out of them."""
        return [each for each in self.closed if isinstance(each, DroppedCopy)]


_FIRST, _LAST = Arrival(EntryId(0, 0), 0), Arrival(EntryId(2**64, 0), 0)
"""Before and after every event. What is given up comes last."""

_Finished = tuple[Arrival, FinishedPart]
"""A finished part, after the event that closed it."""

_Closed = tuple[Arrival, FinishedPart | DroppedCopy]
"""A finished part, or a copy that is dropped, after the event that closed it."""


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
    low_water = low_water.of(state.stream_key)
    result = Resolution(ended=idle_at_ms is not None)
    timeline = Timeline(state, low_water)
    result.contradictions = contradictions_of_finished(timeline)
    at_ends = _end_response(timeline, low_water, result)
    if idle_at_ms is not None and not timeline.terminals:
        at_ends += _give_up(timeline, idle_at_ms, why, result)
    ended = {finished.part: (at, finished.assembly.text) for at, finished in at_ends}
    closes = {
        part: close_of(timeline, part, log) for part, log in state.open_parts.items() if part not in ended
    }
    passed = {
        part: close
        for part, close in closes.items()
        if close is not None and low_water.passed(close.at.entry)
    }
    joined = Joined(timeline)
    assigned = assign_item_copies(timeline, passed, joined, ended)
    others = (earliest(state, part, [other]) for part, other in assigned.others)
    result.contradictions += [contradiction for contradiction in others if contradiction is not None]
    found: list[_Closed] = [*at_ends]
    for part, close in closes.items():
        log = state.open_parts[part]
        if part in assigned.copies:
            at = assigned.closes[part].at
            found.append((at, DroppedCopy(part, log.assembled(at)[1])))
        elif part in assigned.closes:
            found.append((assigned.closes[part].at, _finished(timeline, part, log, assigned.closes[part])))
        elif close is not None:
            finished = _finished(timeline, part, log, close)
            if low_water.stalled and _is_certain(timeline, log, close, finished):
                found.append((close.at, finished))
            else:
                _doubt(result, close.at.entry)
        elif idle_at_ms is not None:
            found.append((_LAST, _abandoned(timeline, part, log, idle_at_ms, why)))
    _fold(timeline, found, assigned.closes, joined, result)
    over = {each.part for each in result.closed}
    left = [(part, log) for part, log in state.open_parts.items() if part not in over]
    result.spent = timeline.spent(low_water, left)
    return result


def _fold(
    timeline: Timeline,
    found: list[_Closed],
    closes: Mapping[PartKey, Close],
    joined: Joined,
    result: Resolution,
) -> None:
    """Add what was found to the result, in the order of the stream; drop whole texts that are copies."""
    known = KnownTexts(timeline)
    for at, closed in sorted(found, key=_in_order):
        if isinstance(closed, DroppedCopy):
            result.closed.append(closed)
            continue
        part, text = closed.part, closed.assembly.text
        close, log = closes.get(part), timeline.state.open_parts.get(part)
        whole = close is not None and log is not None and is_whole(log, close)
        if close and whole and (known.has(part, text, close) or joined.is_spoken(part, text, closes)):
            result.closed.append(DroppedCopy(part, closed.late))
            continue
        known.add(part, at, text)
        result.closed.append(closed)


def _in_order(found: _Closed) -> tuple[Arrival, bool, PartKey]:
    """Return a part's place in the order of the stream; of those that one event closes, copies come last."""
    at, closed = found
    return at, isinstance(closed, DroppedCopy), closed.part


def _end_response(timeline: Timeline, low_water: LowWater, result: Resolution) -> list[_Finished]:
    """Note how the response ended; return the texts that only its ends and its announcements have.

    Only of a kind the response showed no other part of: a copy's position is no proof that a text is a new
    one, and nothing may come twice.
    """
    found: list[_Finished] = []
    shown: set[Kind] = set()
    before = _FIRST
    for arrival, ending in timeline.terminals:
        if not low_water.passed(arrival.entry):
            _doubt(result, arrival.entry)
            continue
        new = [
            _copied(timeline, arrival, ending, copy)
            for copy in ending.copies
            if copy.text and copy.kind not in shown and not timeline.shows(copy.kind, arrival)
        ]
        shown |= {finished.part.kind for finished in new}
        new += _announced(timeline, before, arrival, ending, shown)
        shown |= {finished.part.kind for finished in new}
        found += [(arrival, finished) for finished in new]
        before = arrival
        result.ended = True
        result.ends.append(_end(timeline, arrival, ending, shown))
    return found


def _announced(
    timeline: Timeline, since: Arrival, until: Arrival, ending: Ending, shown: Collection[Kind]
) -> list[FinishedPart]:
    """Return the texts that only the beginnings of their parts gave, between two ends of the response."""
    return [
        _copied(timeline, until, ending, copy)._replace(
            integrity="unverified", integrity_source=None, started_ms=at.entry.ms
        )
        for at, copy in timeline.announced(since, until)
        if copy.kind not in shown and not timeline.shows(copy.kind, until)
    ]


def _give_up(timeline: Timeline, now_ms: int, why: str, result: Resolution) -> list[_Finished]:
    """Note that a response is given up; return the texts that were only announced."""
    state = timeline.state
    ending = Ending(state.stream_key, None, "abandoned", why, reason_class=reason_class(why))
    context = context_of(state.registers)
    result.ends.append(ResponseEnd(state.stream_key, "abandoned", why, context, now_ms, ending.reason_class))
    given_up = _announced(timeline, _FIRST, _LAST, ending, ())
    return [(_LAST, finished._replace(finished_ms=now_ms)) for finished in given_up]


def _end(timeline: Timeline, arrival: Arrival, ending: Ending, copied: Collection[Kind]) -> ResponseEnd:
    """Return how a response ended; `copied` are the kinds of text that only final copies had until then."""
    state = timeline.state
    return ResponseEnd(
        state.stream_key,
        ending.status,
        ending.reason,
        context_of(state.registers, arrival.entry),
        arrival.entry.ms,
        ending.reason_class,
        ending.provider_category,
        ending.provider_explanation,
        timeline.shows("refusal", arrival) or "refusal" in copied,
    )


def _is_certain(timeline: Timeline, log: PartLog, close: Close, finished: FinishedPart) -> bool:
    """Return whether nothing that is still to come of earlier entries could change what comes out.

    Before the response's final copy an entry may still come that ends the item and has no text: then nothing
    confirms the deltas, whatever the copy says. Where item ids differ, the text has the first event's,
    which may still come although its producer has sent it again meanwhile. And of a part that began after its
    response had ended, that end's final copy may already have the text.
    """
    confirmed = finished.integrity == "verified" and close.own and finished.assembly.numbered
    known = confirmed and not log.ids_differ and timeline.state.context_known(close.at.entry)
    return known and not timeline.has_ended(before=log.began)


def _doubt(result: Resolution, entry: EntryId) -> None:
    if result.doubtful_since is None or entry < result.doubtful_since:
        result.doubtful_since = entry


def _copied(timeline: Timeline, arrival: Arrival, ending: Ending, copy: Copy) -> FinishedPart:
    """Return the finished part that a copy's text makes when its response ends."""
    state = timeline.state
    part = PartKey(state.stream_key, copy.position, copy.content_index, copy.kind)
    log = state.open_parts.get(part)
    text = repair(copy.text)
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
        0 if log is None else log.assembled(arrival)[1],
        ending.reason_class,
        ending.provider_category,
        ending.provider_explanation,
        "provider",
        contradiction_of(timeline, part, text, since=arrival),
    )


def _finished(timeline: Timeline, part: PartKey, log: PartLog, close: Close) -> FinishedPart:
    joined, late = log.assembled(close.at)
    stated, ending = close.stated, close.ending
    text, integrity = _judged(joined.text, stated, lost=timeline.has_loss(close.at))
    return FinishedPart(
        part,
        joined._replace(text=text),
        "completed" if ending is None else ending.status,
        None if ending is None else ending.reason,
        integrity,
        log.item_id_until(close.at.entry),
        context_of(timeline.state.registers, close.at.entry),
        log.began.entry.ms,
        close.at.entry.ms,
        late,
        None if ending is None else ending.reason_class,
        None if ending is None else ending.provider_category,
        None if ending is None else ending.provider_explanation,
        stated.note.source if stated.text or stated.note.checksum else None,
        contradiction_of(timeline, part, text, since=log.began),
    )


def _judged(joined: str, stated: StatedText, *, lost: bool) -> tuple[str, Integrity]:
    """Return a part's text, and how far to trust it; `lost`: its producer has reported a loss."""
    text, checksum = repair(stated.text), stated.note.checksum
    if text:
        return text, "verified" if text == joined and not lost else "repaired"
    if stated.note.redacted and not joined:
        return "", "redacted"
    verified = checksum is not None and checksum.fits(joined) and not lost
    return joined, "verified" if verified else "unverified"


def _abandoned(timeline: Timeline, part: PartKey, log: PartLog, now_ms: int, why: str) -> FinishedPart:
    # Its end may have come without any text, from a server that says nothing: then it did complete.
    ended = ended_without_text(timeline, part, log)
    joined = log.assembled()[0]
    return FinishedPart(
        part,
        joined,
        "abandoned" if ended is None else "completed",
        why if ended is None else None,
        "unverified",
        log.item_id,
        context_of(timeline.state.registers),
        log.began.entry.ms,
        now_ms if ended is None else ended.entry.ms,
        reason_class=reason_class(why) if ended is None else None,
        contradiction=contradiction_of(timeline, part, joined.text, since=log.began),
    )
