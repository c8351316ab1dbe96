"""A part's set, in the form it is stored: a log of chunks, one appended by each batch.

A chunk is two numbers (the length of the rest, and how many fragments it has; of seven bits a byte, the low
ones first) and a MessagePack array, in columns, because most fragments differ in little but their delta:

    base milliseconds
    milliseconds after base, one a fragment
    entry counters, one a fragment
    sequence numbers: one a fragment, or the first where each is one more than the one before
    deltas, one a fragment (where one has half a surrogate pair, which UTF-8 has no place for: all of them as
        bytes, in a MessagePack array of its own, in bytes)
    positions in the entry's array, one a fragment; null where all are 0
    item id of its earliest event that has one, or null where an earlier chunk of the same writer had one
    closings: {milliseconds after base, entry counter, position, rank, text}
    milliseconds after base and entry counter of the entry that has the item id, where that is not the first
    whether its events have several item ids

What is null or empty at the end is left out. Fragments stand in the order of their arrivals. A chunk that
is appended twice, or out of order, changes nothing: a log is read as a set.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from handlers.core.assembly import Assembly, StoredClosing, StoredFragment, assemble, lengths_of
from handlers.core.effects import Rank
from handlers.core.identity import Arrival, EntryId
from handlers.core.text import from_bytes, repair, to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FRAGMENT_BYTES = 3
"""Bytes that a fragment takes in a log, at least."""

# after base: milliseconds, entry counter, position, rank, text
_ClosingRow = tuple[int, int, int, int, bytes]

_encode = msgspec.msgpack.Encoder().encode


class CorruptLogError(ValueError):
    """A part's log cannot be read: another program wrote below the worker's prefix."""

    def __init__(self) -> None:
        super().__init__(
            "a part's log is not a sequence of chunks; does another program write to this prefix?"
        )


class Columns(NamedTuple):
    """Fragments in the order of their arrivals, a column a property."""

    milliseconds: list[int]
    """Of their entries' ids; `counters` likewise."""
    counters: list[int]
    numbers: list[int | None]
    deltas: list[str]
    positions: list[int] | None = None
    """In their entries' arrays; None where all are 0."""

    @property
    def first_number(self) -> int | None:
        """The first of the sequence numbers, if each is one more than the one before."""
        start = self.numbers[0] if self.numbers else None
        if start is None or self.numbers != [*range(start, start + len(self.numbers))]:
            return None
        return start

    @classmethod
    def of(cls, fragments: Iterable[StoredFragment]) -> Columns:
        """Fragments, put in their order."""
        ordered = sorted(fragments, key=lambda fragment: fragment.arrival)
        return cls(
            [fragment.arrival.entry.ms for fragment in ordered],
            [fragment.arrival.entry.seq for fragment in ordered],
            [fragment.sequence_number for fragment in ordered],
            [fragment.delta for fragment in ordered],
            [fragment.arrival.position for fragment in ordered],
        )


class _Chunk(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    """A chunk as it is stored, see above."""

    base_ms: int
    offsets: list[int]
    counters: list[int]
    numbers: int | list[int | None]
    deltas: list[str] | bytes
    positions: list[int] | None = None
    item_id: str | None = None
    closings: list[_ClosingRow] = msgspec.field(default_factory=list)
    named: tuple[int, int] | None = None
    ids_differ: bool = False

    def check(self, count: int) -> None:
        """Make the columns ready; `ValueError` if they are not of this length, or nothing is in them."""
        if isinstance(self.deltas, bytes):
            self.deltas = [from_bytes(delta) for delta in _decode_halves(self.deltas)]
        numbers, positions = self.numbers, self.positions
        if not (
            count == len(self.offsets) == len(self.counters) == len(self.deltas)
            and (positions is None or len(positions) == count)
            and (isinstance(numbers, int) or len(numbers) == count)
            and (count or self.closings)
        ):
            raise ValueError

    @property
    def first(self) -> Arrival:
        """The arrival of its earliest event."""
        arrivals = [(ms, counter, position) for ms, counter, position, *_ in self.closings]
        if self.offsets:
            arrivals.append((self.offsets[0], self.counters[0], self._position(0)))
        return self._arrival(*min(arrivals))

    @property
    def named_at(self) -> tuple[int, int]:
        """The id of the entry that has the item id."""
        return self.first.entry if self.named is None else (self.base_ms + self.named[0], self.named[1])

    @property
    def last_fragment(self) -> Arrival:
        """The arrival of its latest fragment; there has to be one."""
        return self.at(-1)

    def at(self, index: int) -> Arrival:
        """Return the arrival of a fragment."""
        return self._arrival(self.offsets[index], self.counters[index], self._position(index))

    def _position(self, index: int) -> int:
        return 0 if self.positions is None else self.positions[index]

    def _arrival(self, ms: int, counter: int, position: int) -> Arrival:
        return Arrival(EntryId(self.base_ms + ms, counter), position)

    @property
    def texts(self) -> list[str]:
        """The deltas."""
        return self.deltas  # type: ignore[return-value]  # since they were checked

    def fragments(self) -> Iterable[StoredFragment]:
        """The fragments, one by one."""
        count, numbers = len(self.deltas), self.numbers
        return (
            StoredFragment(Arrival(EntryId(self.base_ms + ms, counter), position), number, delta)
            for ms, counter, position, number, delta in zip(
                self.offsets,
                self.counters,
                [0] * count if self.positions is None else self.positions,
                range(numbers, numbers + count) if isinstance(numbers, int) else numbers,
                self.texts,
                strict=True,
            )
        )

    def stored_closings(self) -> list[StoredClosing]:
        """The closings."""
        return [
            StoredClosing(
                Arrival(EntryId(self.base_ms + ms, counter), position), Rank(rank), from_bytes(text)
            )
            for ms, counter, position, rank, text in self.closings
        ]


_decode_all = msgspec.msgpack.Decoder(list[_Chunk]).decode
_ARRAY32 = b"\xdd"
"""How MessagePack begins an array with a length of four bytes."""

_decode_halves = msgspec.msgpack.Decoder(list[bytes]).decode


class PartLog:
    """Everything that is known of a part: some chunks, read as one set."""

    __slots__ = (
        "_chunks",
        "_last",
        "_lengths",
        "_named",
        "_speaks_since",
        "began",
        "closings",
        "ids_differ",
        "item_id",
    )

    def __init__(self, chunks: Sequence[_Chunk] = ()) -> None:
        # Batches may be stored in another order than they were read: in that one there is nothing to sort.
        by_first = sorted([(chunk.first, chunk) for chunk in chunks], key=itemgetter(0))
        self._chunks = [chunk for _, chunk in by_first]
        self._last = max([chunk.last_fragment for chunk in chunks if chunk.deltas], default=None)
        self.began = by_first[0][0] if by_first else Arrival(EntryId(0, 0), 0)
        """The arrival of its earliest event."""
        self._speaks_since: Arrival | None = None
        self._lengths: tuple[list[Arrival], list[int]] | None = None
        self.closings = [closing for chunk in chunks if chunk.closings for closing in chunk.stored_closings()]
        named = [(chunk.named_at, chunk.item_id) for chunk in chunks if chunk.item_id is not None]
        first = min(named, default=None)
        self._named = None if first is None else first[0]
        self.item_id: str | None = None if first is None else first[1]
        """The earliest event's that has one."""
        self.ids_differ = any(chunk.ids_differ for chunk in chunks) or len({name for _, name in named}) > 1
        """Whether its events have several item ids: some servers give each event a new one."""

    @property
    def fragments(self) -> list[StoredFragment]:
        """Its fragments, in no order, repeats included."""
        return [fragment for chunk in self._chunks for fragment in chunk.fragments()]

    @property
    def arrivals(self) -> set[Arrival]:
        """When each of its events came."""
        fragments = {fragment.arrival for fragment in self.fragments}
        return fragments.union(closing.arrival for closing in self.closings)

    @property
    def speaks_since(self) -> Arrival | None:
        """The arrival of the earliest fragment that is not empty; None if there is none."""
        if self._speaks_since is None:
            firsts = (
                next((chunk.at(n) for n, delta in enumerate(chunk.texts) if delta), None)
                for chunk in self._chunks
            )
            self._speaks_since = min((first for first in firsts if first is not None), default=None)
        return self._speaks_since

    def has_fragment(self, until: Arrival) -> bool:
        """Return whether a fragment came with this event, or before it."""
        return any(chunk.at(0) <= until for chunk in self._chunks if chunk.deltas)

    def length(self, until: Arrival) -> int:
        """Return the UTF-16 units of the text that came until this event."""
        if self._lengths is None:
            self._lengths = lengths_of(self.fragments)
        arrivals, lengths = self._lengths
        count = bisect_right(arrivals, until)
        return lengths[count - 1] if count else 0

    def item_id_until(self, entry: EntryId) -> str | None:
        """Return the item id, if an event that has one came with this entry, or before it."""
        return self.item_id if self._named is not None and self._named <= entry else None

    def assembled(self, until: Arrival | None = None) -> tuple[Assembly, int]:
        """Join what came until this event; the second value is how many fragments came later."""
        if until is None or self._all_until(until):
            return self._joined() or assemble(self.fragments), 0
        distinct = {fragment.arrival: fragment for fragment in self.fragments}.values()
        in_time = [fragment for fragment in distinct if fragment.arrival <= until]
        return assemble(in_time), len(distinct) - len(in_time)

    def _all_until(self, arrival: Arrival) -> bool:
        return self._last is None or self._last <= arrival

    def _joined(self) -> Assembly | None:
        """The fragments in the order in which they are stored, if their numbers only grow: nothing to sort.

        Then no two numbers are the same, so that there are no repeats either.
        """
        texts: list[str] = []
        first = last = None
        for chunk in self._chunks:
            if not chunk.deltas:
                continue
            numbers, deltas = chunk.numbers, chunk.texts
            if not isinstance(numbers, int) or (last is not None and numbers <= last):
                return None
            first = numbers if first is None else first
            last = numbers + len(deltas) - 1
            texts += deltas
        return Assembly(repair("".join(texts)), len(texts), 0, first, last)


def encode_chunk(
    columns: Columns,
    closings: Sequence[StoredClosing],
    item_id: str | None,
    named: EntryId | None = None,
    *,
    ids_differ: bool = False,
) -> bytes:
    """One chunk with these fragments and closings (at least one of either).

    `named` is the entry that has the item id, where that is not the chunk's first one; `ids_differ` says that
    other events of it have another one.
    """
    milliseconds, counters, numbers, deltas, positions = columns
    count = len(deltas)
    base = milliseconds[0] if count else min(closing.arrival.entry.ms for closing in closings)
    start = columns.first_number
    offsets = [ms - base for ms in milliseconds]
    row: list[Any] = [base, offsets, counters, numbers if start is None else start, deltas]
    if closings or item_id is not None or positions is not None:
        row.append(positions)
        row.append(item_id)
        row.append(
            [(at.ms - base, at.seq, n, rank.value, to_bytes(text)) for (at, n), rank, text in closings]
        )
        if named is not None or ids_differ:
            row.append(None if named is None else (named.ms - base, named.seq))
            row.append(ids_differ)
    try:
        body = _encode(row)
    except UnicodeEncodeError:
        row[_DELTAS] = _encode([to_bytes(delta) for delta in deltas])
        body = _encode(row)
    length = len(body)
    if length < _SEVEN_BITS and count < _SEVEN_BITS:
        return bytes((length, count)) + body
    return _varint(length) + _varint(count) + body


_SEVEN_BITS = 0x80
_DELTAS = 4
"""Where they stand in a chunk."""


def _varint(number: int) -> bytes:
    if number < _SEVEN_BITS:
        return bytes((number,))
    return bytes((number & 0x7F | 0x80,)) + _varint(number >> 7)


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    number = shift = 0
    while (byte := data[offset]) & 0x80:
        number |= (byte & 0x7F) << shift
        shift += 7
        offset += 1
    return number | byte << shift, offset + 1


def _bodies(data: bytes) -> tuple[list[bytes], list[int]]:
    """A log's chunks, still encoded, and how many fragments each has."""
    bodies, counts = [], []
    offset = 0
    while offset < len(data):
        length, count = data[offset], data[offset + 1]
        if length < _SEVEN_BITS and count < _SEVEN_BITS:
            offset += 2
        else:
            length, offset = _read_varint(data, offset)
            count, offset = _read_varint(data, offset)
        bodies.append(data[offset : offset + length])
        counts.append(count)
        offset += length
    return bodies, counts


def decode_log(data: bytes) -> PartLog:
    """Read all chunks of a log; `CorruptLogError` if they are none."""
    try:
        bodies, counts = _bodies(data)
        # All in one go, as one array.
        chunks = _decode_all(_ARRAY32 + len(bodies).to_bytes(4, "big") + b"".join(bodies))
        for chunk, count in zip(chunks, counts, strict=True):
            chunk.check(count)
        return PartLog(chunks)
    except (
        ValueError,
        IndexError,
    ) as error:  # msgspec's errors are, and so is what a wrong rank or text raises
        raise CorruptLogError from error
