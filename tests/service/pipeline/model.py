"""Model the stored set in memory: the specification of commit.lua and settle.lua as a few dictionaries.

Logs grow, endings are united, the smallest register wins, and a finished part stays finished.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from handlers.core.effects import Note
from handlers.core.identity import EntryId
from handlers.core.outputs import assembled_text
from handlers.core.response import FinishedPart, Resolution, resolve
from handlers.core.state import LowWater, ResponseState
from handlers.core.text import repair, text_digest
from service.bus.envelope import open_entry
from service.pipeline.batch import Batch
from service.pipeline.decoded_batch import DecodedBatch
from service.pipeline.event_router import EventRouter
from service.storage.part_codec import decode_log, encode_chunk
from tests.streams import raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deltaloom.messages import AssembledText
    from handlers.core.assembly import StoredClosing
    from handlers.core.context import Registers
    from handlers.core.effects import Ending
    from handlers.core.identity import Arrival, PartKey, StreamKey
    from handlers.core.part_log import PartLog
    from handlers.core.routing import RoutingTable
    from service.ports.commit import Commit
    from service.ports.storage import Entry

NOW_MS = 1_800_000_000_000
MAX_EVENT_BYTES = 1024 * 1024
MAX_ARRAY_LENGTH = 1000
ALL_STORED = LowWater(EntryId(2**62, 0))
"""The low-water mark if all entries are acknowledged."""


def batch_of(
    entries: Sequence[Entry], table: RoutingTable, *, max_event_bytes: int = MAX_EVENT_BYTES
) -> Batch:
    """Return the batch that a worker makes of these entries."""
    router = EventRouter(
        table,
        open_entry,
        stream="deltas",
        max_event_bytes=max_event_bytes,
        max_array_length=MAX_ARRAY_LENGTH,
        max_response_parts=512,
    )
    raws = [raw(str(entry.id).encode(), dict(entry.fields)) for entry in sorted(entries, key=by_id)]
    deliveries = {str(entry.id).encode(): entry.deliveries for entry in entries}
    return Batch(DecodedBatch.of(router.rules, raws), router, now_ms=NOW_MS, deliveries=deliveries)


def differs(closing: StoredClosing, notes: Mapping[Arrival, Note], text: str) -> bool:
    """Return whether a closing has a text other than this one, or the checksum of another text."""
    if closing.text:
        return repair(closing.text) != text
    checksum = notes.get(closing.arrival, Note()).checksum
    return checksum is not None and checksum.sha256 != sha256(text.encode()).hexdigest()


def _arrivals(log: PartLog | None) -> set[Arrival]:
    return set() if log is None else log.arrivals


def by_id(entry: Entry) -> EntryId:
    """Return the sort key of an entry: its position in the stream."""
    return entry.id


@dataclass(slots=True)
class _Response:
    logs: dict[PartKey, bytes] = field(default_factory=dict)
    endings: dict[Arrival, Ending] = field(default_factory=dict)
    notes: dict[Arrival, Note] = field(default_factory=dict)
    registers: Registers = field(default_factory=dict)
    done: dict[PartKey, str] = field(default_factory=dict)
    """The texts of finished parts."""
    dropped: set[PartKey] = field(default_factory=set)
    """Parts that were dropped without output, since they are copies of other parts."""


@dataclass(slots=True)
class StoredSet:
    """Stored responses, and the texts that were written."""

    responses: dict[StreamKey, _Response] = field(default_factory=dict)
    written: dict[PartKey, AssembledText] = field(default_factory=dict)
    contradicted: set[PartKey] = field(default_factory=set)
    """Parts for which a contradiction alert was raised."""

    def commit(self, commit: Commit) -> None:
        """Store the effects of a batch. A second call with the same batch changes nothing."""
        for key, change in commit.responses.items():
            response = self.responses.setdefault(key, _Response())
            for part, added in change.parts.items():
                if part in response.dropped:
                    continue
                if part in response.done:
                    if any(differs(each, change.notes, response.done[part]) for each in added.closings):
                        self.contradicted.add(part)
                else:
                    named = None if added.item_id is None else commit.item_id_entry(added)
                    chunk = encode_chunk(commit.columns(added), added.closings, added.item_id, named)
                    response.logs[part] = response.logs.get(part, b"") + chunk
            response.endings.update(change.endings)
            response.notes.update(change.notes)
            for name, register in change.registers.items():
                response.registers[name] = min(register, response.registers.get(name, register))

    def state(self, key: StreamKey) -> ResponseState:
        """Return a response as the pure core sees it."""
        response = self.responses.get(key, _Response())
        return ResponseState(
            key,
            dict(response.registers),
            dict(response.endings),
            {part: decode_log(log) for part, log in response.logs.items()},
            {
                **{part: text_digest(text) for part, text in response.done.items()},
                **dict.fromkeys(response.dropped),
            },
            dict(response.notes),
        )

    def settle(self, state: ResponseState, resolution: Resolution) -> None:
        """Write finished parts, once each. `state` may be older than the stored response.

        Parts with new arrivals since then are left for a later call, and so are the parts closed after them.
        """
        response = self.responses.setdefault(state.stream_key, _Response())
        all_finished = True
        for closed in resolution.closed:
            part = closed.part
            if part not in response.done and part not in response.dropped:
                if _arrivals(state.open_parts.get(part)) != _arrivals(
                    decode_log(response.logs.get(part, b""))
                ):
                    all_finished = False
                    break
                response.logs.pop(part, None)
                if isinstance(closed, FinishedPart):
                    response.done[part] = closed.assembly.text
                    self.written[part] = assembled_text(closed)
                else:
                    response.dropped.add(part)
            if isinstance(closed, FinishedPart) and closed.contradiction is not None:
                self.contradicted.add(part)
        self.contradicted.update(
            each.part for each in resolution.contradictions if each.part in response.done
        )
        for arrival in resolution.applied_endings if all_finished else ():
            response.endings.pop(arrival, None)

    def settle_all(self, keys: Iterable[StreamKey], low_water: LowWater) -> None:
        """Write the finished parts of these responses."""
        for key in keys:
            state = self.state(key)
            self.settle(state, resolve(state, low_water))

    def process(self, entries: Sequence[Entry], table: RoutingTable, low_water: LowWater) -> None:
        """Run a whole batch: decode, commit and settle."""
        commit = batch_of(entries, table).commit
        self.commit(commit)
        self.settle_all(commit.responses, low_water)
