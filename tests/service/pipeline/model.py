"""The stored set without a server: what commit.lua and settle.lua mean, in a few dictionaries.

It says what the storage must do, not how: a log is appended to, endings are united, the smallest
register wins, and what is finished stays finished.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from handlers.core.identity import EntryId
from handlers.core.log import decode_log, encode_chunk
from handlers.core.outputs import assembled_text
from handlers.core.response import Resolution, resolve
from handlers.core.state import LowWater, ResponseState
from service.bus.envelope import open_entry
from service.pipeline.batch import Batch
from service.pipeline.gathering import Gathered
from service.pipeline.reading import Reading
from tests.streams import raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deltaloom.messages import AssembledText
    from handlers.core.context import Registers
    from handlers.core.effects import Ending
    from handlers.core.identity import Arrival, PartKey, StreamKey
    from handlers.core.routing import RoutingTable
    from service.change import Commit
    from service.ports import Entry

NOW_MS = 1_800_000_000_000
MAX_EVENT_BYTES = 1024 * 1024
MAX_ARRAY_LENGTH = 1000
ALL_STORED = LowWater(EntryId(2**62, 0))
"""The low-water mark when every entry is acknowledged."""


def batch_of(
    entries: Sequence[Entry], table: RoutingTable, *, max_event_bytes: int = MAX_EVENT_BYTES
) -> Batch:
    """Entries, read as the worker reads them."""
    reading = Reading(
        table,
        open_entry,
        stream="deltas",
        max_event_bytes=max_event_bytes,
        max_array_length=MAX_ARRAY_LENGTH,
    )
    raws = [raw(str(entry.id).encode(), dict(entry.fields)) for entry in sorted(entries, key=by_id)]
    deliveries = {str(entry.id).encode(): entry.deliveries for entry in entries}
    return Batch(Gathered.of(reading.rules, raws), reading, now_ms=NOW_MS, deliveries=deliveries)


def by_id(entry: Entry) -> EntryId:
    """Its place in the stream."""
    return entry.id


@dataclass(slots=True)
class _Response:
    logs: dict[PartKey, bytes] = field(default_factory=dict)
    endings: dict[Arrival, Ending] = field(default_factory=dict)
    registers: Registers = field(default_factory=dict)
    done: set[PartKey] = field(default_factory=set)


@dataclass(slots=True)
class StoredSet:
    """All responses, and the texts that were written."""

    responses: dict[StreamKey, _Response] = field(default_factory=dict)
    written: dict[PartKey, AssembledText] = field(default_factory=dict)

    def commit(self, commit: Commit) -> None:
        """Store what a batch adds; a second time changes nothing."""
        for key, change in commit.responses.items():
            response = self.responses.setdefault(key, _Response())
            for part, added in change.parts.items():
                if part not in response.done:
                    named = None if added.item_id is None else commit.named(added)
                    chunk = encode_chunk(commit.columns(added), added.closings, added.item_id, named)
                    response.logs[part] = response.logs.get(part, b"") + chunk
            response.endings.update(change.endings)
            for name, register in change.registers.items():
                response.registers[name] = min(register, response.registers.get(name, register))

    def state(self, key: StreamKey) -> ResponseState:
        """A response as the pure core sees it."""
        response = self.responses.get(key, _Response())
        return ResponseState(
            key,
            dict(response.registers),
            dict(response.endings),
            {part: decode_log(log) for part, log in response.logs.items()},
            dict.fromkeys(response.done),
        )

    def settle(self, state: ResponseState, resolution: Resolution) -> None:
        """Write what is finished, once; `state` may be older than what is stored now."""
        response = self.responses.setdefault(state.stream_key, _Response())
        for finished in resolution.finished:
            if finished.part not in response.done:
                response.done.add(finished.part)
                response.logs.pop(finished.part, None)
                self.written[finished.part] = assembled_text(finished)
        for arrival in resolution.spent:
            response.endings.pop(arrival, None)

    def settle_all(self, keys: Iterable[StreamKey], low_water: LowWater) -> None:
        """Finish what can be finished of these responses."""
        for key in keys:
            state = self.state(key)
            self.settle(state, resolve(state, low_water))

    def take(self, entries: Sequence[Entry], table: RoutingTable, low_water: LowWater) -> None:
        """A whole batch's way: read, store, finish."""
        commit = batch_of(entries, table).commit
        self.commit(commit)
        self.settle_all(commit.responses, low_water)
