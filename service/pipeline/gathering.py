"""Gather events by where they belong, as they are read: the first half of the short way, event by event.

Nearly every event is one more delta of a text that has several in the batch. So the loop here does as little
for an event as there is to do: decode it, and put its few values to those of its like. All that can be said
of several at once is said later, once for all that have the same `Where`. What a handler has to see is only
put aside.

It is done a few hundred entries at a time, while they are still in the processor's caches; then they are let
go of, and the next ones take their memory. A batch of thousands of entries, held as Python has them, is ten
megabytes in a hundred thousand places, and to walk through it twice takes longer than all there is to do.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from deltaloom import limits
from handlers.core.identity import EntryId, StreamKey
from service.pipeline.bodies import Bodies
from service.pipeline.columns import Column, can_be_key, joined
from service.pipeline.frames import NotFrameError, decode_array, decode_one
from service.ports.storage import RawEntry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Self

    from service.pipeline.columns import Where
    from service.pipeline.frames import Frame

EVENT = b"event"

ENTRY_OF_EVENTS = 8
"""An entry has at most so many times the bytes of the largest event."""

_ARRAY = ord("[")

_like = attrgetter("item_id", "type", "output_index", "content_index", "summary_index")


class Rules(NamedTuple):
    """What is to be done with events."""

    asked: Collection[str]
    """The types that only their handlers know what to do with."""
    added: Collection[str]
    """The types that add their delta to a text. All others are counted."""
    max_event_bytes: int
    max_array_length: int

    @property
    def max_entry_bytes(self) -> int:
        """Bytes of an entry that is looked into. The dead letter of a larger one keeps as many.

        The server copies a letter several times while nobody else is served.
        """
        return ENTRY_OF_EVENTS * self.max_event_bytes


class Asked(NamedTuple):
    """An event that has to be handled by itself."""

    entry: int
    """The batch's index of its entry."""
    position: int
    """In the entry's array; 0 where it is no array."""
    event_type: str


class Gathered:
    """Entries of a batch, with their events where they belong."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.dear = False
        """True if it has large entries: to read them may take long."""
        self.ids: list[bytes] = []
        """Of the entries, as the server gave them."""
        self.columns: dict[Where, Column] = {}
        self.asked: list[Asked] = []
        """What has to be handled one by one."""
        self.others: list[int] = []
        """Entries that have to be read in another way, by their index."""
        self._bodies = Bodies()
        """The JSON of those that are in columns."""
        self._kept: dict[int, RawEntry] = {}
        """All others, as they came."""
        self._kept_size = 0
        self._beside: dict[int, list[bytes]] = {}

    @classmethod
    def of(cls, rules: Rules, entries: Sequence[RawEntry]) -> Self:
        """Entries, gathered into one batch."""
        gathered = cls(rules)
        gathered.add(entries)
        return gathered

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Bytes of what would be stored of all entries, at most."""
        return self._bodies.size + self._kept_size

    def raw(self, index: int) -> RawEntry:
        """An entry as it came; only once all of them are gathered."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        if not self._beside:
            self._beside = {
                entry: column.beside for column in self.columns.values() for entry in column.entries
            }
        return RawEntry(self.ids[index], [EVENT, self._bodies[index], *self._beside[index]])

    def raws(self) -> list[RawEntry]:
        """All entries, as they came."""
        return [self.raw(index) for index in range(len(self.ids))]

    def cut(self, pieces: int) -> list[Self]:
        """Return so many smaller batches of the same entries."""
        raws = self.raws()
        size = max(1, -(-len(raws) // max(2, pieces)))
        cut = [self.of(self._rules, raws[first : first + size]) for first in range(0, len(raws), size)]
        for piece in cut:
            piece.dear = self.dear
        return cut

    @classmethod
    def unread(cls, rules: Rules, entries: Sequence[RawEntry]) -> Self:
        """Entries without a look into them: all are left to another way of reading."""
        gathered = cls(rules)
        for entry in entries:
            gathered._leave(len(gathered.ids), entry)
            gathered.ids.append(entry[0])
        gathered._bodies.extend([b""] * len(entries))
        return gathered

    def _leave(self, index: int, entry: RawEntry) -> None:
        self.others.append(index)
        self._keep(index, entry)

    def _keep(self, index: int, entry: RawEntry) -> None:
        self._kept[index] = entry
        self._kept_size += size_of(entry)

    def add(self, entries: Sequence[RawEntry], largest: int | None = None) -> int:  # noqa: C901, PLR0915 - speed
        """Decode the events of entries; whether anything of it can be taken, the caller finds out.

        Args:
            entries: these.
            largest: bytes; the first entry that is larger, and all behind it, are not added.

        Returns:
            How many were added.
        """
        asked, added, longest, most = self._rules
        if largest is not None:
            longest = min(longest, largest)
        columns, known = self.columns, self.columns.get
        bodies: list[bytes] = []
        index = len(self.ids) - 1
        for entry in entries:
            index += 1
            _, fields = entry
            body = fields[1]
            if fields[0] != EVENT or not 0 < len(body) <= longest:
                if largest is not None and size_of(entry) > largest:
                    break
                self._leave(index, entry)
                bodies.append(b"")
                continue
            try:
                if not body.isascii():
                    body.decode()  # the decoder does not look into the fields that it passes over
                if body[0] == _ARRAY:
                    events = decode_array(body)
                    bodies.append(body if self._add_array(index, entry, events, most) else b"")
                    continue
                frame = decode_one(body)
            except NotFrameError:
                self._leave(index, entry)
                bodies.append(b"")
                continue
            event_type, delta, item_id = frame.type, frame.delta, frame.item_id
            if event_type in asked or (delta is None and event_type in added):
                self.asked.append(Asked(index, 0, event_type))
                self._keep(index, entry)
                bodies.append(b"")
                continue
            beside = fields[2:]
            where = (
                joined(beside),
                len(beside),
                event_type,
                frame.output_index,
                frame.content_index,
                frame.summary_index,
            )
            column = known(where)
            if column is None:
                if not can_be_key(where[0], beside):
                    self._leave(index, entry)
                    bodies.append(b"")
                    continue
                column = columns[where] = Column(beside, item_id)
            elif item_id != column.item_id:
                column.rename(item_id)
            column.entries.append(index)
            column.numbers.append(frame.sequence_number)
            column.deltas.append(delta)
            bodies.append(body)
        added_count = len(bodies)
        self.ids += [entry_id for entry_id, _ in entries[:added_count]]
        self._bodies.extend(bodies)
        return added_count

    def _add_array(self, index: int, entry: RawEntry, events: list[Frame], at_most: int) -> bool:
        """Add the events of an entry's array; whether all of them are in columns.

        One that is too long, or empty, is left to another way.
        """
        beside = entry[1][2:]
        together = joined(beside)
        if not 0 < len(events) <= at_most or not can_be_key(together, beside):
            self._leave(index, entry)
            return False
        asked, added = self._rules.asked, self._rules.added
        first, all_in_columns = 0, True
        for (item_id, event_type, *indexes), frames in groupby(events, _like):
            run = list(frames)
            deltas = [frame.delta for frame in run]
            if event_type in asked or (event_type in added and None in deltas):
                self.asked += [Asked(index, first + n, event_type) for n in range(len(run))]
                all_in_columns = False
            else:
                self._column((together, len(beside), event_type, *indexes), beside, item_id).add_run(
                    index, first, run, deltas
                )
            first += len(run)
        if not all_in_columns:
            self._keep(index, entry)
        return all_in_columns

    def _column(self, where: Where, beside: list[bytes], item_id: str | None) -> Column:
        column = self.columns.get(where)
        if column is None:
            column = self.columns[where] = Column(beside, item_id)
        elif item_id != column.item_id:
            column.rename(item_id)
        return column


DEAR_BYTES = 16 * 1024
"""A larger entry is dear: it may take long. It comes after the others of its read, and its owner is noted."""

NOBODY = StreamKey("item", "")
"""The owner of an entry that is too large to be looked into: a dead letter concerns no response."""

DEAR_AT_ONCE = 128 * 1024
"""Bytes of a batch of dear entries."""


class Gathering:
    """What one read brings, gathered as it comes: a batch, or several of at most so many bytes.

    Large entries come last, in batches of their own, so that the others need not wait for them: texts are the
    same in whatever order entries are taken.
    """

    def __init__(self, rules: Rules, max_bytes: int, history: str = "") -> None:
        self._rules = rules
        self._max_bytes = max_bytes
        self.history = history
        """Of storage's data, the one that was known when the read began; empty: none was."""
        self.owners: dict[bytes, StreamKey] = {}
        """The responses of dear entries that name one, by the ids of the entries."""
        self._light: list[Gathered] = []
        self._anybodys: list[RawEntry] = []
        """Dear entries that do not say whose they are: the texts of all responses wait for them."""
        self._dear: list[RawEntry] = []
        self._too_large: list[RawEntry] = []
        """Entries that are not looked into: they come last."""
        self._size_behind = 0
        self._behind: set[StreamKey | None] = set()
        """The owners of dear entries; None stands for all of which it is not known.

        Their later entries stay behind them, so that the entries of a response are taken in their order.
        """

    def __len__(self) -> int:
        return sum(map(len, self._behind_the_light)) + sum(map(len, self._light))

    @property
    def ids(self) -> list[bytes]:
        """Of the entries, as the server gave them, in their order."""
        if len(self._light) == 1 and not self._size_behind:
            return self._light[0].ids
        ids = [each for batch in self._light for each in batch.ids]
        ids += [entry_id for some in self._behind_the_light for entry_id, _ in some]
        return sorted(ids, key=lambda each: EntryId.parse(each.decode()))

    @property
    def batches(self) -> list[Gathered]:
        """What is to be taken, one after the other."""
        light = [batch for batch in self._light if len(batch)]
        cut = (some for entries in self._behind_the_light for some in slices(entries, DEAR_AT_ONCE))
        dear = [Gathered.of(self._rules, some) for some in cut]
        for batch in dear:
            batch.dear = True
        return [*light, *dear]

    @property
    def _behind_the_light(self) -> tuple[list[RawEntry], ...]:
        return self._anybodys, self._dear, self._too_large

    @property
    def has_dear(self) -> bool:
        """Whether some entries are dear, or wait behind one that is."""
        return self._size_behind > 0

    @property
    def size(self) -> int:
        """Bytes of what would be stored of all entries, at most."""
        return self._size_behind + sum(batch.size for batch in self._light)

    def extend(self, entries: Sequence[RawEntry]) -> None:
        """Add entries, in the order of their ids."""
        if not self._light:
            self._light.append(Gathered(self._rules))
        last = self._light[-1]
        count = 0 if self._size_behind else last.add(entries, DEAR_BYTES)
        if count < len(entries):
            last.add(self._put_back_some(entries[count:]))
        if last.size > self._max_bytes:
            self._light[-1:] = [
                Gathered.of(self._rules, some) for some in slices(last.raws(), self._max_bytes)
            ]

    def _put_back_some(self, entries: Sequence[RawEntry]) -> list[RawEntry]:
        """Put back dear entries, and those of the same owner that follow them; return the others."""
        light = []
        for entry in entries:
            size, owner = size_of(entry), _owner_of(entry)
            if size > self._rules.max_entry_bytes:
                self._too_large.append(entry)
                self.owners[entry[0]] = owner or NOBODY
            elif size > DEAR_BYTES or owner in self._behind:
                (self._anybodys if owner is None else self._dear).append(entry)
                self._behind.add(owner)
                if owner is not None:
                    self.owners[entry[0]] = owner
            else:
                light.append(entry)
                continue
            self._size_behind += size
        return light


def _owner_of(entry: RawEntry) -> StreamKey | None:
    """Return the response that all events of an entry are of; None if the entry does not say it plainly."""
    names, values = entry[1][::2], entry[1][1::2]
    if names.count(b"response_id") != 1:
        return None
    value = values[names.index(b"response_id")]
    if not 0 < len(value) <= limits.ID or not value.isascii():
        return None
    response_id = value.decode()
    return StreamKey("response", response_id) if response_id.isprintable() else None


def slices(entries: Sequence[RawEntry], max_bytes: int) -> Iterator[Sequence[RawEntry]]:
    """The entries in order, in slices of at most so many bytes to be stored (or of one entry)."""
    first, size = 0, 0
    for index, more in enumerate(map(size_of, entries)):
        if index > first and size + more > max_bytes:
            yield entries[first:index]
            first, size = index, 0
        size += more
    if entries:
        yield entries[first:]


def size_of(entry: RawEntry) -> int:
    """Return the bytes of what is stored of an entry, at most."""
    return sum(map(len, entry[1]))


def is_array(body: bytes) -> bool:
    """Whether the JSON of an entry that was gathered is an array."""
    return body[0] == _ARRAY
