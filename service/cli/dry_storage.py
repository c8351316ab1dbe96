"""Storage in memory for `deltaloom publish --dry-run`, behind the same port as Redis.

It serves one worker that is alone and never crashes, so it needs neither atomicity nor a consumer group.
A survey settles responses once all entries so far are stored. It keeps to the limits of a part and of
the number of parts, but not to the limits that protect a server from hostile input.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.context import Registers, context_of, merged
from handlers.core.identity import EntryId
from handlers.core.state import LowWater, ResponseState
from handlers.core.text import text_digest
from service.ports.storage import Committed, Contradicted, LoadedResponse, Survey, TextToWrite
from service.storage.part_codec import decode_log, encode_chunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deltaloom.messages import AssembledText, DeadLetter, ModerationAlert
    from handlers.core.effects import ContextValues, Ending, Note
    from handlers.core.identity import Arrival, PartKey, StreamKey
    from service.ports.commit import Commit, PartChange, ResponseChange
    from service.ports.storage import Settlement
    from service.settings import Settings

_HISTORY = "dry-run"
"""Replication id: the memory is never lost."""


class ResponseOver(NamedTuple):
    """The end of a response."""

    stream_key: StreamKey
    ending: Ending | None
    """Event that ended the response; None if it was given up."""
    context: ContextValues
    has_text: bool


@dataclass(slots=True)
class _State:
    """The stored state of a response."""

    registers: Registers = field(default_factory=dict)
    endings: dict[Arrival, Ending] = field(default_factory=dict)
    notes: dict[Arrival, Note] = field(default_factory=dict)
    logs: dict[PartKey, bytes] = field(default_factory=dict)
    fragments: Counter[PartKey] = field(default_factory=Counter)
    finished: dict[PartKey, str | None] = field(default_factory=dict)
    raised: set[PartKey | str] = field(default_factory=set)
    """Parts with an opening alert, and types of the alerts about the end."""
    contradicted: set[PartKey] = field(default_factory=set)
    ending: Ending | None = None
    """First end of the response."""
    version: int = 0
    is_over: bool = False
    is_crowded: bool = False
    """True if the dead letter about too many parts was written."""


class DryStorage:
    """Keeps the state of responses in memory, and collects what a worker would write."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._states: dict[StreamKey, _State] = {}
        self._waiting: set[StreamKey] = set()
        self._open: set[StreamKey] = set()
        self._last = EntryId(0, 0)
        self.is_at_end = False
        """True if the next survey gives up all open responses."""
        self.outputs: list[AssembledText | ModerationAlert | DeadLetter | ResponseOver] = []
        """Messages that a worker would write, in its order; the caller empties it."""
        self.counts: Counter[str] = Counter()
        """Numbers of events that have no effect and of values that were left out, as a worker names them."""

    @property
    def replication_id(self) -> str:
        """A fixed id."""
        return _HISTORY

    @property
    def now_ms(self) -> int:
        """The time of this machine in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    async def commit(self, commit: Commit, replication_id: str = "", *, whole: bool = False) -> Committed:
        """Store the effects of a batch; refuse it as the server does if it exceeds a limit of a part."""
        del replication_id, whole
        refused = self._refused(commit)
        if refused.must_change:
            return refused
        opened: list[PartKey] = []
        disputed: list[PartKey] = []
        for key, change in commit.responses.items():
            state = self._states.setdefault(key, _State())
            self._apply(commit, key, change, state)
            for part, part_change in change.parts.items():
                self._raise_alerts(state, part, part_change, opened, disputed)
        for name, entries in commit.counts.items():
            self.counts[name] += len(entries)
        self.outputs += [letter for _, letter in commit.dead_letters]
        crowded = [key for key in commit.crowded if not self._states.setdefault(key, _State()).is_crowded]
        for key in crowded:
            self._states[key].is_crowded = True
            self.outputs.append(commit.crowded[key][1])
        self._last = max(self._last, *map(commit.entry, range(len(commit.entries))), EntryId(0, 0))
        return Committed(
            acknowledged=len(commit.entries),
            opened_parts=opened,
            disputed_parts=disputed,
            reported_crowds=[commit.crowded[key][0] for key in crowded],
            replication_id=_HISTORY,
            now_ms=self.now_ms,
        )

    def _refused(self, commit: Commit) -> Committed:
        overflowing: list[PartKey] = []
        crowded: list[PartKey] = []
        contradicted: dict[PartKey, Contradicted] = {}
        for key, change in commit.responses.items():
            state = self._states.get(key, _State())
            count = len(state.logs) + len(state.finished)
            for part, part_change in change.parts.items():
                if part in state.finished:
                    digest = state.finished[part]
                    others = {each for each, _ in commit.stated_texts(change, part_change)} - {digest}
                    if digest and others and not part_change.contradicted and part not in state.contradicted:
                        contradicted[part] = Contradicted(digest, state.registers)
                    continue
                if part not in state.logs:
                    count += 1
                    if count > self._settings.max_response_parts:
                        crowded.append(part)
                size = len(state.logs.get(part, b"")) + len(_chunk_of(commit, part_change))
                fragments = state.fragments[part] + len(part_change.entries)
                if size > self._settings.max_part_bytes or fragments > self._settings.max_part_fragments:
                    overflowing.append(part)
        return Committed(overflowing=overflowing, crowded=crowded, contradicted=contradicted)

    def _apply(self, commit: Commit, key: StreamKey, change: ResponseChange, state: _State) -> None:
        state.registers = merged(state.registers, change.registers)
        state.endings |= change.endings
        state.notes |= change.notes
        for _, ending in sorted(change.endings.items()):
            if ending.output_index is None:
                state.ending = state.ending or ending
        for part, part_change in change.parts.items():
            if part in state.finished:
                self.counts["late"] += len(part_change.entries)
            else:
                state.logs[part] = state.logs.get(part, b"") + _chunk_of(commit, part_change)
                state.fragments[part] += len(part_change.entries)
        state.version += 1
        if change.endings or any(each.closings for each in change.parts.values()):
            self._waiting.add(key)
        if state.logs or state.endings or not state.is_over:
            self._open.add(key)

    def _raise_alerts(
        self,
        state: _State,
        part: PartKey,
        change: PartChange,
        opened: list[PartKey],
        disputed: list[PartKey],
    ) -> None:
        if change.opening_alert and part not in state.finished and part not in state.raised:
            state.raised.add(part)
            opened.append(part)
            self.outputs.append(change.opening_alert)
        if change.contradicted and part in state.finished and part not in state.contradicted:
            state.contradicted.add(part)
            disputed.append(part)
            self.outputs.append(change.contradicted)

    async def record_owners(self, owners: Mapping[bytes, StreamKey]) -> None:
        """Do nothing: no other worker holds an entry."""

    async def confirm(self) -> None:
        """Do nothing: nothing is written to a disk."""

    async def registers_for_opening(self, parts: Sequence[PartKey]) -> Mapping[PartKey, Registers | None]:
        """Return the context of the parts' responses; None for parts that are stored."""
        found: dict[PartKey, Registers | None] = {}
        for part in parts:
            state = self._states.get(part.stream_key, _State())
            is_stored = part in state.raised or part in state.finished or part in state.logs
            found[part] = None if is_stored else state.registers
        return found

    async def load(self, stream_keys: Sequence[StreamKey]) -> Sequence[LoadedResponse]:
        """Read responses, in the order of their keys."""
        return [self._loaded(key, self._states[key]) for key in stream_keys if key in self._states]

    @staticmethod
    def _loaded(key: StreamKey, state: _State) -> LoadedResponse:
        logs = {part: decode_log(log) for part, log in state.logs.items()}
        stored = ResponseState(
            key, state.registers, dict(state.endings), logs, dict(state.finished), dict(state.notes)
        )
        sizes = {part: len(log) for part, log in state.logs.items()}
        alerted = [part for part in logs if part in state.raised]
        return LoadedResponse(stored, state.version, sizes, alerted)

    async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> Sequence[PartKey]:
        """Collect finished texts and alerts, once each; return the parts that this call has finished."""
        del replication_id
        return [part for each in settlements for part in self._settle(each, self._states[each.stream_key])]

    def _settle(self, settlement: Settlement, state: _State) -> list[PartKey]:
        written: list[PartKey] = []
        for closed in settlement.closed:
            part = closed.part
            if part in state.finished:
                continue
            state.logs.pop(part, None)
            state.finished[part] = None
            self.counts["late"] += closed.late
            if isinstance(closed, TextToWrite):
                state.finished[part] = text_digest(closed.message.text)
                written.append(part)
                self._write(state, closed)
        for part, alert in settlement.contradictions.items():
            self._contradict(state, part, alert)
        for arrival in settlement.applied_endings:
            state.endings.pop(arrival, None)
            state.notes.pop(arrival, None)
        if not settlement.partial:
            self._conclude(settlement, state)
        return written

    def _write(self, state: _State, text: TextToWrite) -> None:
        self.outputs.append(text.message)
        if text.opened and text.part not in state.raised:
            state.raised.add(text.part)
            self.outputs.append(text.opened)
        if text.finished:
            self.outputs.append(text.finished)
        if text.contradicted:
            self._contradict(state, text.part, text.contradicted)

    def _contradict(self, state: _State, part: PartKey, alert: ModerationAlert) -> None:
        if part in state.finished and part not in state.contradicted:
            state.contradicted.add(part)
            self.outputs.append(alert)

    def _conclude(self, settlement: Settlement, state: _State) -> None:
        if settlement.unsettled_since is None:
            self._waiting.discard(settlement.stream_key)
        for alert in settlement.outcome.alerts if settlement.outcome else ():
            if alert.type not in state.raised:
                state.raised.add(alert.type)
                self.outputs.append(alert)
        if settlement.ended and not state.logs and not state.endings:
            self._open.discard(settlement.stream_key)
            if not state.is_over:
                state.is_over = True
                context = context_of(state.registers)
                self.outputs.append(
                    ResponseOver(settlement.stream_key, state.ending, context, bool(state.finished))
                )

    async def set_aside(self, stream_key: StreamKey) -> None:
        """Give up a response that cannot be written."""
        self._waiting.discard(stream_key)
        self._open.discard(stream_key)
        self.counts["set_aside"] += 1

    async def survey(self, idle_timeout_ms: int) -> Survey:
        """Return the responses that wait to be settled; at the end, all that are open too."""
        del idle_timeout_ms
        now_ms = self.now_ms
        idle = dict.fromkeys(sorted(self._open - self._waiting), now_ms) if self.is_at_end else {}
        return Survey(LowWater(self._last.next()), now_ms, sorted(self._waiting), False, idle, {}, _HISTORY)

    async def surplus(self, max_open: int, at_most: int | None = None) -> Survey:
        """Return nothing: a recording holds few responses."""
        del max_open, at_most
        return Survey(LowWater(self._last.next()), self.now_ms, (), False, {}, {}, _HISTORY)


def _chunk_of(commit: Commit, change: PartChange) -> bytes:
    """Return the chunk of a part's log with what a batch adds to it."""
    entry = commit.item_id_entry(change)
    at = None if change.item_id is None or entry == commit.began(change) else entry
    return encode_chunk(
        commit.columns(change), change.closings, change.item_id, at, ids_differ=change.ids_differ
    )
