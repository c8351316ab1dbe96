"""The closing rules: decide when a text is finished, and with which text.

1. A part is closed by the first of these events:
   - its own `.done`, a copy of the part or its item, or the end of its item, if the event gives a text, marks
     the text as redacted, or comes after a non-empty delta;
   - the end of its response, in any case.
   An earlier `.done` without a text is only stored: a later copy may have the text.
2. Events after the closing one are late and do not change the text. The end of an item or a response closes
   only the parts that began before it. The order of events in the stream counts, also within an array. Their
   division into entries and batches does not.
3. A whole text (one without deltas before its closing event) may be a copy at another place than its
   original. A copy makes no text of its own: see `handlers.core.copies`.
4. Events before the closing one may still be pending in another worker, normally for milliseconds. So a
   closed part waits until the group's low-water mark has passed the closing entry. If the mark is stalled,
   because the other worker is stuck or dead, texts that are certain are finished, and only the others wait.
   `_is_certain` has the conditions.
5. A finished text is never revised. A different authoritative text for the part is reported as a
   contradiction, also if the part was finished long before: see `handlers.core.contradictions`.
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
"""Reason of a text that was abandoned because too many responses were open, and its response was one of those
without a new entry for the longest time."""


class FinishedPart(NamedTuple):
    """A finished part, with its text and all values of its message.

    `assembly` has the text. If the response's ending closed the part, and neither a closing of the part nor
    the end of its item came before, then `status`, `reason` and the values about the reason are those of the
    ending. A part that was given up is `abandoned`, unless such a closing or end came, without a text. Any
    other part is `completed`, without a reason. `context` is the context known at the closing event; for a
    part that no event closed, all that is stored.
    """

    part: PartKey
    assembly: Assembly
    status: Status
    reason: str | None
    integrity: Integrity
    item_id: str | None
    context: ContextValues
    started_ms: int
    """Time of the entry that began the part, in ms since the epoch."""
    finished_ms: int
    """Time of the entry that closed the part, in ms since the epoch; server time if it was abandoned."""
    late: int = 0
    """Number of fragments that came after the closing event."""
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    integrity_source: IntegritySource | None = None
    """Writer of the whole text or checksum that the closing event gives; None if it gives neither."""
    contradiction: Contradiction | None = None
    """Earliest other authoritative text of the part in the stored state; None if there is none."""


class DroppedCopy(NamedTuple):
    """A part that is a copy of another one: no message is written for it."""

    part: PartKey
    late: int = 0
    """Number of fragments that came after the closing event."""


class ResponseEnd(NamedTuple):
    """An end of a response: its ending in the stream, or the moment at which the response is given up.

    A response may have two: an `error`, then `response.failed`.
    """

    stream_key: StreamKey
    status: Status
    reason: str | None
    context: ContextValues
    at_ms: int
    """Time of the ending's entry, or of giving up the response, in ms since the epoch."""
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    refused_in_text: bool = False
    """True if a part of a kind that counts as refused is finished or began at or before this end, or if this
    or an earlier end gives a text of the kind. That text has alerts of its own. False if the response is
    given up."""
    fallback: ModelChange | None = None
    """First change of the model in the response, if it was reported at or before this end; else None."""


@dataclass(slots=True)
class Resolution:
    """The result of `resolve`: the parts, ends and contradictions of a response that can be settled now."""

    closed: list[FinishedPart | DroppedCopy] = field(default_factory=list)
    """Parts to finish or drop, in the order of their closing events, given-up parts last.

    A dropped copy comes after its original, if `closed` has the original.
    """
    applied_endings: list[Arrival] = field(default_factory=list)
    """Arrivals of the endings of items and of the response, unsorted, that have nothing left to close.

    The low-water mark has passed them, and no part that they could close stays open.
    """
    ended: bool = False
    """True if the low-water mark has passed a stored ending of the response, or the response is given up."""
    ends: list[ResponseEnd] = field(default_factory=list)
    """Stored ends of the response that the low-water mark has passed, in the order of the stream.

    One end with the status `abandoned` if the response is given up and no ending of it is stored.
    """
    contradictions: list[Contradiction] = field(default_factory=list)
    """Final copies that contradict parts stored as finished, and misplaced item copies that contradict parts
    closed before them. Other contradictions are in `FinishedPart.contradiction`."""
    unsettled_since: EntryId | None = None
    """Earliest entry that closed a part, or ended an item or the response, and that still waits for the
    low-water mark; None if there is none."""

    @property
    def finished(self) -> list[FinishedPart]:
        """Finished parts in `closed`, in the same order."""
        return [each for each in self.closed if isinstance(each, FinishedPart)]

    @property
    def dropped(self) -> list[DroppedCopy]:
        """Dropped copies in `closed`, in the same order."""
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

    The state is not changed.

    Args:
        state: the stored state; it must have been read after `low_water`.
        low_water: the low-water mark of the group; the response's own mark in it is used, if there is one.
        refusing: the kinds of text that count as refused.
        idle_at_ms: the server time, in ms since the epoch, at which the response is given up: parts that no
            event closes are finished with the text that they have. Parts whose closing event the low-water
            mark has not passed wait all the same. None: the response is not given up, and these parts stay
            open.
        why: the reason for giving up; without `idle_at_ms` it has no effect.
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
    """Yield the parts that can be finished or dropped, each with the arrival of its close, in no fixed order.

    A close that the low-water mark has not passed must wait, unless the mark is stalled and the text is
    certain. A part without a close in `closes` or `assigned` is skipped.

    Args:
        timeline: the indexes of the response's state.
        low_water: the low-water mark of the response.
        closes: open parts, each with the close at its own place, or None if there is none.
        assigned: the closes that the mark has passed, including those by misplaced copies, and the parts that
            are misplaced copies. These parts are yielded as `DroppedCopy`.
        result: its `unsettled_since` is lowered to the earliest entry with a close that waits.
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
    """Append the parts in `found` to `result.closed`, sorted by the arrivals of their closes.

    A whole text that repeats the text of another part is appended as a `DroppedCopy`: rule 2 of
    `handlers.core.copies`. `closes` has the closes of open parts that the low-water mark has passed,
    including those by misplaced copies. A finished part that is not in `closes` never becomes a copy.
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
    """Return a sort key: by arrival of the close, then finished parts before dropped copies, then by part."""
    at, closed = found
    return at, isinstance(closed, DroppedCopy), closed.part


def _end_response(
    timeline: Timeline, low_water: LowWater, result: Resolution, refusing: Collection[Kind]
) -> list[_Finished]:
    """Record in `result` the stored endings of the response that the low-water mark has passed.

    Each is appended to `result.ends`; `result.ended` is set to True if there is one. `refusing` has the kinds
    of text that count as refused.

    Return finished parts for the texts that only a final copy gives, or only the event that announced their
    parts, each with the arrival of the ending. Texts of a kind are left out if a part of that kind is
    finished or began at or before the ending, or if an earlier ending gave a text of the kind; announced
    texts also if the final copy gives one. The position of a copy does not prove that its text is new, and no
    text may be written twice.
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
    """Return finished parts for the texts announced from `since` (inclusive) to `until` (exclusive).

    An event announces a text if it begins a part and gives the part's text. `ending` ends the response at
    `until` and closes the parts. Their integrity is `unverified`, and they begin when they were announced.
    Left out are texts of `kinds_with_text`, and of kinds of which a part is finished or began at or before
    `until`.
    """
    return [
        _part_from_copy(timeline, until, ending, copy)._replace(
            integrity="unverified", integrity_source=None, started_ms=at.entry.ms
        )
        for at, copy in timeline.announced(since, until)
        if copy.kind not in kinds_with_text and not timeline.has_part(copy.kind, until)
    ]


def _give_up(timeline: Timeline, now_ms: int, why: str, result: Resolution) -> list[_Finished]:
    """Append to `result.ends` that the response is given up at `now_ms` for the reason `why`.

    Return finished parts for announced texts of kinds of which the response has no open or finished part,
    each with the arrival `_LAST`. Call it only if no ending of the response is stored.
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
    """Return whether a closed part may be finished while a stuck worker holds entries from before `close`.

    `finished` is the part as `close` closes it. All of these must hold:

    1. The text is verified by the part or its item at the part's place. A final copy is not enough: a pending
       entry may close the part earlier, without a text.
    2. Sequence numbers order the fragments, so that a pending repeat does not change the text.
    3. The item ids agree. If they differ, the message has that of the first event, which may be pending.
    4. No pending `response.created` can change the context.
    5. No stored end of the response came before the part began: its final copy may already have the text.

    A pending entry may still have a repeat, which `duplicate_count` then misses, or an event that contradicts
    the message, such as a report of a loss, which is then late.
    """
    confirmed = finished.integrity == "verified" and close.own and finished.assembly.numbered
    known = confirmed and not log.ids_differ and timeline.state.context_known(close.at.entry)
    return known and not timeline.has_ended(before=log.began)


def _record_unsettled(result: Resolution, entry: EntryId) -> None:
    if result.unsettled_since is None or entry < result.unsettled_since:
        result.unsettled_since = entry


def _part_from_copy(timeline: Timeline, arrival: Arrival, ending: Ending, copy: Copy) -> FinishedPart:
    """Return a finished part with the text of `copy`, closed by the response's `ending` at `arrival`.

    `copy` is from the final copy or from an event that announced the text. The integrity is `repaired`; the
    part begins and ends at the time of `arrival`. Stored fragments of the part after `arrival` are counted as
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

    A whole text in `stated` is returned: `verified` if the deltas equal it, else `repaired`. Without one, the
    deltas are returned: `redacted` if there are none and `stated` is redacted, `verified` if they have the
    checksum in `stated`, else `unverified`.

    Args:
        text_of_deltas: the joined deltas, repaired.
        stated: the whole text that the closing event gives, its checksum, a mark that it is redacted, or none
            of them.
        lost: true if the producer reported at or before the close that it lost events. The text is then never
            `verified`.
    """
    text, checksum = repair(stated.text), stated.note.checksum
    if text:
        return text, "verified" if text == text_of_deltas and not lost else "repaired"
    if stated.note.redacted and not text_of_deltas:
        return "", "redacted"
    verified = checksum is not None and checksum.fits(text_of_deltas) and not lost
    return text_of_deltas, "verified" if verified else "unverified"


def _abandoned_part(timeline: Timeline, part: PartKey, log: PartLog, now_ms: int, why: str) -> FinishedPart:
    """Return the finished part for an open part that no event closes, with the text of all its deltas.

    If a closing of the part or the end of its item came without a text, the part is `completed` at that time.
    Else it is `abandoned` at the server time `now_ms`, for the reason `why`.
    """
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
