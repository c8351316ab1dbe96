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
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.assembly import Assembly, assemble
from handlers.core.context import RegisterName, context_of
from handlers.core.effects import Context, Copy, Ending, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.text import repair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltaloom.messages import Integrity, Kind, Status
    from handlers.core.context import Register
    from handlers.core.log import PartLog

IDLE_TIMEOUT = "idle_timeout"
"""The reason of a text that was abandoned because nothing came any more."""

OPEN_LIMIT = "open_limit"
"""The reason of one that was abandoned because too many were open, and it was silent the longest."""


class LowWater(NamedTuple):
    """How far the group has come: the effects of every entry before `entry` are stored."""

    entry: EntryId = EntryId(0, 0)
    stalled: bool = False
    """Whether the worker that holds `entry` seems to be stuck."""

    def passed(self, entry: EntryId) -> bool:
        """Whether an entry, and all before it, are stored."""
        return entry < self.entry


@dataclass(frozen=True, slots=True)
class ResponseState:
    """All that is stored of one response."""

    stream_key: StreamKey
    registers: Mapping[RegisterName, Register] = field(default_factory=dict)
    endings: Mapping[Arrival, Ending] = field(default_factory=dict)
    open_parts: Mapping[PartKey, PartLog] = field(default_factory=dict)
    finished_parts: frozenset[PartKey] = frozenset()

    def context_known(self, until: EntryId) -> bool:
        """Whether all is known that `response.created` could tell of a text that is closed with this entry.

        What a repeat of it says later is too late for the text. Nothing ties it to a bare item.
        """
        learned = self.registers.get(RegisterName("model", learned=True))
        context = context_of(self.registers, until)
        told = None not in {context.model, context.safety_identifier}
        return self.stream_key.by == "item" or told or (learned is not None and learned.entry <= until)


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


class ResponseEnd(NamedTuple):
    """How a response ended, as one event says. There may be two: an `error`, then `response.failed`."""

    stream_key: StreamKey
    status: Status
    reason: str | None
    context: Context
    at_ms: int


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
    doubtful_since: EntryId | None = None
    """The earliest entry that closed something which is still in doubt."""


class _Close(NamedTuple):
    """The entry that closes a part, and what it says."""

    entry: EntryId
    status: Status
    reason: str | None
    text: str
    own: bool
    """Whether the text was said of the part or its item, not only in the response's final copy."""


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
    for arrival, ending in sorted(state.endings.items()):
        if not low_water.passed(arrival.entry):
            _doubt(result, arrival.entry)
        elif ending.output_index is None:
            copied |= {each.part: each for each in _only_in_final_copy(state, arrival, ending, shown)}
            result.ended = True
            result.ends.append(_end(state, arrival, ending))
    for part, log in state.open_parts.items():
        if part in copied:  # it began when it was closed already
            continue
        close = _close(state, part, log)
        if close is None:
            if idle_at_ms is not None:
                result.finished.append(_abandoned(state, part, log, idle_at_ms, why))
            continue
        finished = _finished(state, part, log, close)
        if low_water.passed(close.entry) or (low_water.stalled and _is_certain(state, log, close, finished)):
            result.finished.append(finished)
        else:
            _doubt(result, close.entry)
    result.finished += copied.values()
    if idle_at_ms is not None and all(ending.output_index is not None for ending in state.endings.values()):
        context = context_of(state.registers)
        result.ends.append(ResponseEnd(state.stream_key, "abandoned", why, context, idle_at_ms))
    still_open = set(state.open_parts) - {finished.part for finished in result.finished}
    result.spent = [
        arrival
        for arrival, ending in state.endings.items()
        if low_water.passed(arrival.entry)
        and not any(_concerns(arrival, ending, part, state.open_parts[part]) for part in still_open)
    ]
    return result


def _end(state: ResponseState, arrival: Arrival, ending: Ending) -> ResponseEnd:
    context = context_of(state.registers, arrival.entry)
    return ResponseEnd(state.stream_key, ending.status, ending.reason, context, arrival.entry.ms)


def _is_certain(state: ResponseState, log: PartLog, close: _Close, finished: FinishedPart) -> bool:
    """Whether nothing that is still to come of earlier entries could change a text, or what is said of it.

    Before the response's final copy an entry may still come that ends the item and has no text: then nothing
    confirms the deltas, whatever the copy says. And where item ids differ, the text has the first event's,
    which may still come although its producer has sent it again meanwhile.
    """
    confirmed = finished.integrity == "verified" and close.own and finished.assembly.numbered
    return confirmed and not log.ids_differ and state.context_known(close.entry)


def _concerns(arrival: Arrival, ending: Ending, part: PartKey, log: PartLog) -> bool:
    """Whether an ending closes a part: it is of its scope, and the part had begun."""
    return ending.output_index in {None, part.output_index} and log.began <= arrival.entry


def _doubt(result: Resolution, entry: EntryId) -> None:
    if result.doubtful_since is None or entry < result.doubtful_since:
        result.doubtful_since = entry


def _close(state: ResponseState, part: PartKey, log: PartLog) -> _Close | None:
    """The first entry that closes the part and leaves it with a text; None if it is still open."""
    texts, items, terminals = _closings_by_entry(state, part, log)
    own_end = False
    for entry in sorted({*texts, *items, *terminals}):
        said = texts.get(entry, [])
        terminal = terminals.get(entry)
        own_end = own_end or entry in items or any(rank is not Rank.RESPONSE for rank, _ in said)
        rank, text = next(((rank, text) for rank, text in sorted(said) if text), (Rank.RESPONSE, ""))
        if not (text or terminal or log.says_something_until(entry)):
            continue
        if own_end or terminal is None:
            return _Close(entry, "completed", None, text, rank is not Rank.RESPONSE)
        return _Close(entry, terminal.status, terminal.reason, text, rank is not Rank.RESPONSE)
    return None


def _closings_by_entry(
    state: ResponseState, part: PartKey, log: PartLog
) -> tuple[dict[EntryId, list[tuple[Rank, str]]], set[EntryId], dict[EntryId, Ending]]:
    """Entry by entry: the texts said of the part, the ends of its item, the ends of its response."""
    texts: dict[EntryId, list[tuple[Rank, str]]] = {}
    items: set[EntryId] = set()
    terminals: dict[EntryId, Ending] = {}
    for arrival, rank, text in log.closings:
        texts.setdefault(arrival.entry, []).append((rank, text))
    for arrival, ending in sorted(state.endings.items()):
        if not _concerns(arrival, ending, part, log):
            continue
        if ending.output_index is not None:
            items.add(arrival.entry)
            continue
        terminals.setdefault(arrival.entry, ending)
        copy = _copy_of(part, log, ending)
        if copy is not None:
            texts.setdefault(arrival.entry, []).append((Rank.RESPONSE, copy.text))
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
    state: ResponseState, arrival: Arrival, ending: Ending, shown: set[Kind]
) -> list[FinishedPart]:
    """Texts that nothing but the response's final copy has.

    Only of a kind the response showed no other part of (`shown`, which grows): the copy's positions are no
    proof that a text is a new one, and nothing may come twice.
    """
    shown |= {part.kind for part, log in state.open_parts.items() if log.began <= arrival.entry}
    only_here = [
        FinishedPart(
            PartKey(state.stream_key, copy.position, copy.content_index, copy.kind),
            assemble(())._replace(text=repair(copy.text)),
            ending.status,
            ending.reason,
            "repaired",
            copy.item_id,
            context_of(state.registers, arrival.entry),
            arrival.entry.ms,
            arrival.entry.ms,
            _late(state, PartKey(state.stream_key, copy.position, copy.content_index, copy.kind), arrival),
        )
        for copy in ending.copies
        if copy.text and copy.kind not in shown
    ]
    shown |= {finished.part.kind for finished in only_here}
    return only_here


def _late(state: ResponseState, part: PartKey, arrival: Arrival) -> int:
    """Fragments of a part that came after its text."""
    log = state.open_parts.get(part)
    return 0 if log is None else log.assembled(arrival.entry)[1]


def _finished(state: ResponseState, part: PartKey, log: PartLog, close: _Close) -> FinishedPart:
    assembly, late = log.assembled(close.entry)
    text = repair(close.text)
    integrity: Integrity
    if text:
        integrity = "verified" if text == assembly.text else "repaired"
        assembly = assembly._replace(text=text)
    else:
        integrity = "unverified"
    return FinishedPart(
        part,
        assembly,
        close.status,
        close.reason,
        integrity,
        log.item_id,
        context_of(state.registers, close.entry),
        log.began.ms,
        close.entry.ms,
        late,
    )


def _abandoned(state: ResponseState, part: PartKey, log: PartLog, now_ms: int, why: str) -> FinishedPart:
    # Its end may have come without any text, from a server that says nothing: then it did complete.
    texts, items, _ = _closings_by_entry(state, part, log)
    ended = min({*texts, *items}, default=None)
    return FinishedPart(
        part,
        log.assembled()[0],
        "abandoned" if ended is None else "completed",
        why if ended is None else None,
        "unverified",
        log.item_id,
        context_of(state.registers),
        log.began.ms,
        now_ms if ended is None else ended.ms,
    )
