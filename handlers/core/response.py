"""The closing rules: decide when a text is finished, and with which text.

1. A part is closed by the first event that closes it and leaves it with a text: its own `.done`, a copy of
   the part or its item, or the end of its response. A closing without a text, of a part without deltas, is
   only stored: a later copy may have the text.
2. Later events are late and change nothing. The end of an item or a response closes only the parts that began
   before it. Only the order of events counts, also within an array. Their division into entries and batches
   does not.
3. A whole text (one without deltas) may be a copy at another place than its original. Such a copy makes no
   text of its own: see `handlers.core.copies`.
4. Events before the closing one may still be pending in another worker, normally for milliseconds. So a
   closed part waits until the group's low-water mark has passed the closing entry. If the other worker is
   stuck or dead, texts that are certain are finished at once, and only the others wait. `_is_certain` has the
   conditions.
5. A finished text is never revised. A different authoritative text for the same part is a contradiction,
   whenever it comes.
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
from handlers.core.effects import ContextValues, Copy, Ending
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.text import repair
from handlers.core.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from deltaloom.messages import Integrity, IntegritySource, Kind, Status
    from deltaloom.reasons import ReasonClass
    from handlers.core.closes import Close, StatedText
    from handlers.core.contradictions import Contradiction
    from handlers.core.copies import Assigned
    from handlers.core.effects import ModelChange
    from handlers.core.part_log import PartLog
    from handlers.core.state import LowWater, ResponseState

IDLE_TIMEOUT = "idle_timeout"
"""Reason of a text that was abandoned because its response had no new entry for the idle timeout."""

OPEN_LIMIT = "open_limit"
"""Reason of a text that was abandoned because too many responses were open, and this one was idle longest."""


class FinishedPart(NamedTuple):
    """A finished part, with its text and all values of its message."""

    part: PartKey
    assembly: Assembly
    status: Status
    reason: str | None
    integrity: Integrity
    item_id: str | None
    context: ContextValues
    started_ms: int
    finished_ms: int
    late: int = 0
    """Number of fragments that came after the closing event."""
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    integrity_source: IntegritySource | None = None
    contradiction: Contradiction | None = None


class DroppedCopy(NamedTuple):
    """A part that is a copy of another one: no message is written for it."""

    part: PartKey
    late: int = 0
    """Number of fragments that came after the closing event."""


class ResponseEnd(NamedTuple):
    """An end of a response. A response may have two: an `error`, then `response.failed`."""

    stream_key: StreamKey
    status: Status
    reason: str | None
    context: ContextValues
    at_ms: int
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    refused_in_text: bool = False
    """True if the response has a text of a kind that counts as refused: that text has alerts of its own."""
    fallback: ModelChange | None = None
    """First change of the model that was reported up to this end; None if none was."""


@dataclass(slots=True)
class Resolution:
    """The parts, ends and contradictions of a response that can be settled now."""

    closed: list[FinishedPart | DroppedCopy] = field(default_factory=list)
    """Closed parts in the order of their closing events; a copy comes after its original."""
    applied_endings: list[Arrival] = field(default_factory=list)
    """Endings with nothing left to close: no open part began before them."""
    ended: bool = False
    """True if the response has ended or is given up."""
    ends: list[ResponseEnd] = field(default_factory=list)
    """Ends of the response that the low-water mark has passed, in the order of the stream; or the end of a
    response that is given up."""
    contradictions: list[Contradiction] = field(default_factory=list)
    """Texts of copies that differ from the texts of parts that were finished or closed before."""
    unsettled_since: EntryId | None = None
    """Earliest entry that closed a part, or ended an item or the response, and that still waits for the
    low-water mark; None if there is none."""

    @property
    def finished(self) -> list[FinishedPart]:
        """Finished parts."""
        return [each for each in self.closed if isinstance(each, FinishedPart)]

    @property
    def dropped(self) -> list[DroppedCopy]:
        """Copies of other parts: no message is written for them."""
        return [each for each in self.closed if isinstance(each, DroppedCopy)]


_FIRST, _LAST = Arrival(EntryId(0, 0), 0), Arrival(EntryId(2**64, 0), 0)
"""Arrivals before and after every event. Parts that are given up close at `_LAST`."""

_Finished = tuple[Arrival, FinishedPart]
"""Arrival of the closing event, and the finished part."""

_Closed = tuple[Arrival, FinishedPart | DroppedCopy]
"""Arrival of the closing event, and the finished part or dropped copy."""


def resolve(
    state: ResponseState,
    low_water: LowWater,
    *,
    refusing: Collection[Kind] = (),
    idle_at_ms: int | None = None,
    why: str = IDLE_TIMEOUT,
) -> Resolution:
    """Apply the closing rules to the stored state of a response; return what can be settled now.

    Args:
        state: the stored state; it must have been read after `low_water`.
        low_water: the low-water mark of the group.
        refusing: the kinds of text that count as refused.
        idle_at_ms: give up all parts that no event closes, at this server time in ms since the epoch. None:
            keep them open.
        why: the reason for giving up.
    """
    low_water = low_water.of(state.stream_key)
    result = Resolution(ended=idle_at_ms is not None)
    timeline = Timeline(state, low_water)
    for at in state.endings:
        if not low_water.passed(at.entry):
            _record_unsettled(result, at.entry)
    result.contradictions = contradictions_of_finished(timeline)
    finished_at_ends = _end_response(timeline, low_water, result, refusing)
    if idle_at_ms is not None and not timeline.response_ends:
        finished_at_ends += _give_up(timeline, idle_at_ms, why, result)
    texts_of_ends = {finished.part: (at, finished.assembly.text) for at, finished in finished_at_ends}
    closes = {
        part: close_of(timeline, part, log)
        for part, log in state.open_parts.items()
        if part not in texts_of_ends
    }
    passed_closes = {
        part: close
        for part, close in closes.items()
        if close is not None and low_water.passed(close.at.entry)
    }
    joined = Joined(timeline)
    assigned = assign_item_copies(timeline, passed_closes, joined, texts_of_ends)
    others = (earliest(state, part, [other]) for part, other in assigned.others)
    result.contradictions += [contradiction for contradiction in others if contradiction is not None]
    found: list[_Closed] = [*finished_at_ends, *_close_parts(timeline, low_water, closes, assigned, result)]
    if idle_at_ms is not None:
        found += [
            (_LAST, _abandoned_part(timeline, part, state.open_parts[part], idle_at_ms, why))
            for part, close in closes.items()
            if close is None and part not in assigned.closes and part not in assigned.copies
        ]
    _add_closed(timeline, found, assigned.closes, joined, result)
    closed_parts = {each.part for each in result.closed}
    still_open = [(part, log) for part, log in state.open_parts.items() if part not in closed_parts]
    result.applied_endings = timeline.applied_endings(low_water, still_open)
    return result


def _close_parts(
    timeline: Timeline,
    low_water: LowWater,
    closes: Mapping[PartKey, Close | None],
    assigned: Assigned,
    result: Resolution,
) -> Iterator[_Closed]:
    """Yield the parts that can be finished or dropped, each with the arrival of its close.

    A close that the low-water mark has not passed must wait, unless the mark is stalled and the text is
    certain. The arrival of the earliest close that waits is recorded in `result`.

    Args:
        timeline: the response's ends and copies.
        low_water: the low-water mark.
        closes: for each open part the close at its own place, or None if there is none.
        assigned: the closes that the mark has passed, including those by misplaced copies, and the parts that
            are such copies. The copies are dropped.
        result: where the earliest close that waits is recorded.
    """
    for part, close in closes.items():
        log = timeline.state.open_parts[part]
        if part in assigned.copies:
            at = assigned.closes[part].at
            yield at, DroppedCopy(part, log.assembled(at)[1])
        elif part in assigned.closes:
            yield assigned.closes[part].at, _finished_part(timeline, part, log, assigned.closes[part])
        elif close is not None:  # the mark has not passed the close yet
            finished = _finished_part(timeline, part, log, close)
            if low_water.stalled and _is_certain(timeline, log, close, finished):
                yield close.at, finished
            else:
                _record_unsettled(result, close.at.entry)


def _add_closed(
    timeline: Timeline,
    found: list[_Closed],
    closes: Mapping[PartKey, Close],
    joined: Joined,
    result: Resolution,
) -> None:
    """Add the parts in `found` to `result`, in the order of the stream; drop whole texts that are copies.

    `closes` has the closes of parts that an event has closed, behind the low-water mark.
    """
    known = KnownTexts(timeline)
    for at, closed in sorted(found, key=_in_order):
        if isinstance(closed, DroppedCopy):
            result.closed.append(closed)
            continue
        part, text = closed.part, closed.assembly.text
        close, log = closes.get(part), timeline.state.open_parts.get(part)
        whole = close is not None and log is not None and is_whole(log, close)
        if close and whole and (known.has(part, text, close) or joined.is_open_text(part, text, closes)):
            result.closed.append(DroppedCopy(part, closed.late))
            continue
        known.add(part, at, text)
        result.closed.append(closed)


def _in_order(found: _Closed) -> tuple[Arrival, bool, PartKey]:
    """Return the sort key of a closed part; among parts that one event closes, copies come last."""
    at, closed = found
    return at, isinstance(closed, DroppedCopy), closed.part


def _end_response(
    timeline: Timeline, low_water: LowWater, result: Resolution, refusing: Collection[Kind]
) -> list[_Finished]:
    """Record in `result` the ends of the response that the low-water mark has passed.

    Return the texts that no other event gave: a final copy has them, or the event that announced their parts.
    Texts of a kind are left out if the response had a part of that kind by then. The position of a copy does
    not prove that its text is new, and no text may be written twice. `refusing` has the kinds of text that
    count as refused.
    """
    found: list[_Finished] = []
    kinds_with_text: set[Kind] = set()
    before = _FIRST
    for arrival, ending in timeline.response_ends:
        if not low_water.passed(arrival.entry):
            continue
        new = [
            _part_from_copy(timeline, arrival, ending, copy)
            for copy in ending.copies
            if copy.text and copy.kind not in kinds_with_text and not timeline.has_part(copy.kind, arrival)
        ]
        kinds_with_text |= {finished.part.kind for finished in new}
        new += _announced_parts(timeline, before, arrival, ending, kinds_with_text)
        kinds_with_text |= {finished.part.kind for finished in new}
        found += [(arrival, finished) for finished in new]
        before = arrival
        result.ended = True
        refused = False
        for kind in refusing:  # `any` would take longer than the check of the usual one kind
            refused = refused or kind in kinds_with_text or timeline.has_part(kind, arrival)
        result.ends.append(_response_end(timeline, arrival, ending, refused_in_text=refused))
    return found


def _announced_parts(
    timeline: Timeline, since: Arrival, until: Arrival, ending: Ending, kinds_with_text: Collection[Kind]
) -> list[FinishedPart]:
    """Return the texts announced from `since` to before `until` that no other event gave.

    An event announces a text if it begins a part and gives the text of it. `ending` ends the response at
    `until`. Texts of `kinds_with_text`, and of kinds of which the response has a part by then, are left out.
    """
    return [
        _part_from_copy(timeline, until, ending, copy)._replace(
            integrity="unverified", integrity_source=None, started_ms=at.entry.ms
        )
        for at, copy in timeline.announced(since, until)
        if copy.kind not in kinds_with_text and not timeline.has_part(copy.kind, until)
    ]


def _give_up(timeline: Timeline, now_ms: int, why: str, result: Resolution) -> list[_Finished]:
    """Record in `result` that the response is given up at `now_ms` for the reason `why`.

    Return the texts that only the event that announced them gave.
    """
    state = timeline.state
    ending = Ending(state.stream_key, None, "abandoned", why, reason_class=reason_class(why))
    context = context_of(state.registers)
    result.ends.append(
        ResponseEnd(
            state.stream_key,
            "abandoned",
            why,
            context,
            now_ms,
            ending.reason_class,
            fallback=timeline.fallback(_LAST),
        )
    )
    given_up = _announced_parts(timeline, _FIRST, _LAST, ending, ())
    return [(_LAST, finished._replace(finished_ms=now_ms)) for finished in given_up]


def _response_end(
    timeline: Timeline, arrival: Arrival, ending: Ending, *, refused_in_text: bool
) -> ResponseEnd:
    state = timeline.state
    return ResponseEnd(
        stream_key=state.stream_key,
        status=ending.status,
        reason=ending.reason,
        context=context_of(state.registers, arrival.entry),
        at_ms=arrival.entry.ms,
        reason_class=ending.reason_class,
        provider_category=ending.provider_category,
        provider_explanation=ending.provider_explanation,
        refused_in_text=refused_in_text,
        fallback=timeline.fallback(arrival),
    )


def _is_certain(timeline: Timeline, log: PartLog, close: Close, finished: FinishedPart) -> bool:
    """Return whether no earlier entry that is still pending can change the message of a finished part.

    All of these must hold:

    1. The text is verified by the part or its item at the part's place. A final copy is not enough: a pending
       entry may close the part earlier, without a text.
    2. Sequence numbers order the fragments, so that a pending repeat changes nothing.
    3. The item ids agree. If they differ, the message has that of the first event, which may be pending.
    4. No pending `response.created` can change the context.
    5. No unapplied end of the response came before the part: its final copy may already have the text.
    """
    confirmed = finished.integrity == "verified" and close.own and finished.assembly.numbered
    known = confirmed and not log.ids_differ and timeline.state.context_known(close.at.entry)
    return known and not timeline.has_ended(before=log.began)


def _record_unsettled(result: Resolution, entry: EntryId) -> None:
    if result.unsettled_since is None or entry < result.unsettled_since:
        result.unsettled_since = entry


def _part_from_copy(timeline: Timeline, arrival: Arrival, ending: Ending, copy: Copy) -> FinishedPart:
    """Return a part with the text of `copy`, closed by the response's `ending` at `arrival`.

    `copy` is from the final copy or from an event that announced the text. Fragments after `arrival` are
    late.
    """
    state = timeline.state
    part = PartKey(state.stream_key, copy.output_position, copy.content_index, copy.kind)
    log = state.open_parts.get(part)
    text = repair(copy.text)
    return FinishedPart(
        part=part,
        assembly=assemble(())._replace(text=text),
        status=ending.status,
        reason=ending.reason,
        integrity="repaired",
        item_id=copy.item_id,
        context=context_of(state.registers, arrival.entry),
        started_ms=arrival.entry.ms,
        finished_ms=arrival.entry.ms,
        late=0 if log is None else log.assembled(arrival)[1],
        reason_class=ending.reason_class,
        provider_category=ending.provider_category,
        provider_explanation=ending.provider_explanation,
        integrity_source="provider",
        contradiction=contradiction_of(timeline, part, text, since=arrival),
    )


def _finished_part(timeline: Timeline, part: PartKey, log: PartLog, close: Close) -> FinishedPart:
    assembly, late = log.assembled(close.at)
    stated, ending = close.stated, close.ending
    text, integrity = _text_and_integrity(assembly.text, stated, lost=timeline.has_loss(close.at))
    return FinishedPart(
        part=part,
        assembly=assembly if text == assembly.text else assembly._replace(text=text),
        status="completed" if ending is None else ending.status,
        reason=None if ending is None else ending.reason,
        integrity=integrity,
        item_id=log.item_id_until(close.at.entry),
        context=context_of(timeline.state.registers, close.at.entry),
        started_ms=log.began.entry.ms,
        finished_ms=close.at.entry.ms,
        late=late,
        reason_class=None if ending is None else ending.reason_class,
        provider_category=None if ending is None else ending.provider_category,
        provider_explanation=None if ending is None else ending.provider_explanation,
        integrity_source=stated.note.source if stated.text or stated.note.checksum else None,
        contradiction=contradiction_of(timeline, part, text, since=log.began),
    )


def _text_and_integrity(text_of_deltas: str, stated: StatedText, *, lost: bool) -> tuple[str, Integrity]:
    """Return the text of a closed part, and its integrity.

    Args:
        text_of_deltas: the joined deltas.
        stated: what the closing event gives: the whole text, its checksum, that it is redacted, or nothing.
        lost: true if the producer reported lost events by then, so that the text is never `verified`.
    """
    text, checksum = repair(stated.text), stated.note.checksum
    if text:
        return text, "verified" if text == text_of_deltas and not lost else "repaired"
    if stated.note.redacted and not text_of_deltas:
        return "", "redacted"
    verified = checksum is not None and checksum.fits(text_of_deltas) and not lost
    return text_of_deltas, "verified" if verified else "unverified"


def _abandoned_part(timeline: Timeline, part: PartKey, log: PartLog, now_ms: int, why: str) -> FinishedPart:
    """Return the finished part for one that is given up: abandoned, or completed if it ended by itself."""
    # Some servers send the end of a part without any text: then the part did complete.
    ended = ended_without_text(timeline, part, log)
    assembly = log.assembled()[0]
    return FinishedPart(
        part=part,
        assembly=assembly,
        status="abandoned" if ended is None else "completed",
        reason=why if ended is None else None,
        integrity="unverified",
        item_id=log.item_id,
        context=context_of(timeline.state.registers),
        started_ms=log.began.entry.ms,
        finished_ms=now_ms if ended is None else ended.entry.ms,
        reason_class=reason_class(why) if ended is None else None,
        contradiction=contradiction_of(timeline, part, assembly.text, since=log.began),
    )
