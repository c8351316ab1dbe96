"""Decode entries into columns: the first half of the fast path, one event at a time.

Nearly every event is a delta, and a batch has several deltas of the same text. The loop here does only the
work of a single event: it decodes the event and appends its values to the column of its `ColumnKey`.
`service.pipeline.batch` does the work that is the same for a whole column, once per column. Events that
need their handler are listed in `needs_handler`, entries for the slow path in `slow_path`.

A few hundred entries are decoded at a time, while they are still in the processor's caches. Then they are
released, and the next entries reuse their memory. As Python objects, a batch of thousands of entries takes
10 MB in 100,000 allocations; a second pass over them costs more than all the other work.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from service.pipeline.bodies import Bodies
from service.pipeline.columns import Column, can_be_key, join_metadata
from service.pipeline.frames import NOT_A_FRAME, decode_array, decode_one
from service.ports.storage import RawEntry

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Self

    from service.pipeline.columns import ColumnKey
    from service.pipeline.frames import Frame

EVENT = b"event"

MAX_ENTRY_SIZE_FACTOR = 8
"""Maximum size of an entry that is decoded, in multiples of `max_event_bytes`."""

_ARRAY = ord("[")

_column_values = attrgetter("item_id", "type", "output_index", "content_index", "summary_index")


class Rules(NamedTuple):
    """The rules by which events are sorted into columns, handler calls and the slow path."""

    needs_handler: Collection[str]
    """Event types that have to go through their handler."""
    adds_delta: Collection[str]
    """Event types that only add their delta to a text. Types in neither set are only counted."""
    max_event_bytes: int
    max_array_length: int

    @property
    def max_entry_bytes(self) -> int:
        """Maximum bytes of an entry that is decoded.

        A larger one becomes a dead letter with only this many of its bytes, because the server copies a
        letter several times and is blocked meanwhile.
        """
        return MAX_ENTRY_SIZE_FACTOR * self.max_event_bytes


class HandlerEvent(NamedTuple):
    """An event that has to go through its handler."""

    entry: int
    """Index of its entry in the batch, from 0."""
    position: int
    """Position in the entry's array, from 0; 0 if the entry holds a single event."""
    event_type: str


class DecodedBatch:
    """A batch of decoded entries: deltas and merely counted events in columns, the others in lists.

    Entries go by their index in the batch, from 0, in the order in which they were added.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.has_large = False
        """True if the batch has deferred entries, which are mostly large: its commit is made in a thread."""
        self.ids: list[bytes] = []
        """Ids of the entries, as the server sent them."""
        self.columns: dict[ColumnKey, Column] = {}
        self.needs_handler: list[HandlerEvent] = []
        """Events that have to go through their handlers."""
        self.slow_path: list[int] = []
        """Indexes of the entries that have to take the slow path."""
        self._bodies = Bodies()
        """The JSON of the entries with all events in columns; an empty string for the others."""
        self._kept: dict[int, RawEntry] = {}
        """The entries with an event that is in no column, as the server sent them, by index."""
        self._kept_size = 0
        self._metadata: dict[int, list[bytes]] = {}
        """Metadata of the entries in columns, by index. The first call of `raw` builds it; entries that are
        added later are missing."""

    @classmethod
    def of(cls, rules: Rules, entries: Sequence[RawEntry]) -> Self:
        """Return entries decoded into one batch."""
        decoded = cls(rules)
        decoded.add(entries)
        return decoded

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Bytes of all entries. Of an entry with all events in columns, only its JSON counts."""
        return self._bodies.size + self._kept_size

    def raw(self, index: int) -> RawEntry:
        """Return an entry as the server sent it. Call it only after the last `add`."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        if not self._metadata:
            self._metadata = {
                entry: column.metadata for column in self.columns.values() for entry in column.entries
            }
        return RawEntry(self.ids[index], [EVENT, self._bodies[index], *self._metadata[index]])

    def raws(self) -> list[RawEntry]:
        """Return all entries as the server sent them. Call it only after the last `add`."""
        return [self.raw(index) for index in range(len(self.ids))]

    def cut(self, pieces: int) -> list[Self]:
        """Return the same entries, decoded again, in about `pieces` smaller batches, in order.

        Two entries or more give at least two batches. One entry gives one.
        """
        raws = self.raws()
        size = max(1, -(-len(raws) // max(2, pieces)))
        cut = [self.of(self._rules, raws[first : first + size]) for first in range(0, len(raws), size)]
        for piece in cut:
            piece.has_large = self.has_large
        return cut

    @classmethod
    def unread(cls, rules: Rules, entries: Sequence[RawEntry]) -> Self:
        """Return a batch with all entries on the slow path, without decoding any."""
        decoded = cls(rules)
        for entry in entries:
            decoded._leave_to_slow_path(len(decoded.ids), entry)
            decoded.ids.append(entry[0])
        decoded._bodies.extend([b""] * len(entries))
        return decoded

    def _leave_to_slow_path(self, index: int, entry: RawEntry) -> None:
        self.slow_path.append(index)
        self._keep(index, entry)

    def _keep(self, index: int, entry: RawEntry) -> None:
        self._kept[index] = entry
        self._kept_size += size_of(entry)

    def add(self, entries: Sequence[RawEntry], largest: int | None = None) -> int:  # noqa: C901, PLR0915 - speed
        """Decode entries and add their events.

        An entry that the fast path cannot decode is left to the slow path, which finds out what is wrong.
        Each entry adds one string to `_bodies`: its JSON if all of its events went into columns, else "".

        Args:
            entries: the entries, in the order of their ids, after those of earlier calls.
            largest: maximum bytes of an entry; the first larger entry and all after it are not added.
                If the first field is an `event` within the limits, only this event is measured.
                None means no limit.

        Returns:
            The number of entries that were added, counted from the first.
        """
        needs_handler, adds_delta, max_event_bytes, max_array_length = self._rules
        if largest is not None:
            max_event_bytes = min(max_event_bytes, largest)
        columns, column_of = self.columns, self.columns.get
        bodies: list[bytes] = []
        index = len(self.ids) - 1
        for entry in entries:
            index += 1
            _, fields = entry
            body = fields[1]
            # The fast path reads entries whose first field is the event.
            if fields[0] != EVENT or not 0 < len(body) <= max_event_bytes:
                if largest is not None and size_of(entry) > largest:
                    break
                self._leave_to_slow_path(index, entry)
                bodies.append(b"")
                continue
            try:
                if not body.isascii():
                    body.decode()  # the JSON decoder does not check the UTF-8 of fields that it skips
                if body[0] == _ARRAY:
                    events = decode_array(body)
                    bodies.append(body if self._add_array(index, entry, events, max_array_length) else b"")
                    continue
                frame = decode_one(body)
            except NOT_A_FRAME:
                self._leave_to_slow_path(index, entry)
                bodies.append(b"")
                continue
            event_type, delta, item_id = frame.type, frame.delta, frame.item_id
            if event_type in needs_handler or (delta is None and event_type in adds_delta):
                self.needs_handler.append(HandlerEvent(index, 0, event_type))
                self._keep(index, entry)
                bodies.append(b"")
                continue
            metadata = fields[2:]
            key = (
                join_metadata(metadata),
                len(metadata),
                event_type,
                frame.output_index,
                frame.content_index,
                frame.summary_index,
            )
            column = column_of(key)
            if column is None:
                if not can_be_key(key[0], metadata):
                    self._leave_to_slow_path(index, entry)
                    bodies.append(b"")
                    continue
                column = columns[key] = Column(metadata, item_id)
            elif item_id != column.item_id:
                column.change_item_id(item_id)
            column.entries.append(index)
            column.numbers.append(frame.sequence_number)
            column.deltas.append(delta)
            bodies.append(body)
        added_count = len(bodies)
        self.ids += [entry_id for entry_id, _ in entries[:added_count]]
        self._bodies.extend(bodies)
        return added_count

    def _add_array(self, index: int, entry: RawEntry, events: list[Frame], at_most: int) -> bool:
        """Add the events of an entry's array; return whether all of them went into columns.

        The entry is left to the slow path if its array is empty or has more than `at_most` events, or if its
        metadata cannot be a key. Of other arrays, events that need their handler go into `needs_handler`, and
        the rest into columns.
        """
        metadata = entry[1][2:]
        together = join_metadata(metadata)
        if not 0 < len(events) <= at_most or not can_be_key(together, metadata):
            self._leave_to_slow_path(index, entry)
            return False
        needs_handler, adds_delta = self._rules.needs_handler, self._rules.adds_delta
        first, all_in_columns = 0, True
        for (item_id, event_type, *indexes), frames in groupby(events, _column_values):
            run = list(frames)
            deltas = [frame.delta for frame in run]
            if event_type in needs_handler or (event_type in adds_delta and None in deltas):
                self.needs_handler += [HandlerEvent(index, first + n, event_type) for n in range(len(run))]
                all_in_columns = False
            else:
                self._column((together, len(metadata), event_type, *indexes), metadata, item_id).add_run(
                    index, first, run, deltas
                )
            first += len(run)
        if not all_in_columns:
            self._keep(index, entry)
        return all_in_columns

    def _column(self, key: ColumnKey, metadata: list[bytes], item_id: str | None) -> Column:
        column = self.columns.get(key)
        if column is None:
            column = self.columns[key] = Column(metadata, item_id)
        elif item_id != column.item_id:
            column.change_item_id(item_id)
        return column


def size_of(entry: RawEntry) -> int:
    """Return the bytes of an entry's field names and values."""
    return sum(map(len, entry[1]))


def is_array(body: bytes) -> bool:
    """Return whether the JSON of an entry that the fast path decoded is an array."""
    return body[0] == _ARRAY
