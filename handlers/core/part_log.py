"""Encode and decode the log of a part: a sequence of chunks, of which each batch appends one.

A chunk has two varints (seven bits a byte, the low ones first) and a MessagePack array. The varints are the
bytes of the array and the number of fragments. The array has columns, because most fragments differ only in
their delta:

    base milliseconds
    milliseconds after base, one a fragment
    entry counters, one a fragment
    sequence numbers, one a fragment; or only the first, if each is one more than the previous one
    deltas, one a fragment; if any has a lone surrogate, which UTF-8 cannot encode, all of them as bytes in a
        nested MessagePack array, which is itself stored as bytes
    positions in the entry's array, one a fragment; null if all are 0
    item id of the earliest event that has one; null if an earlier chunk of the same writer had it
    closings: (milliseconds after base, entry counter, position, rank, text)
    milliseconds after base and entry counter of the entry with the item id; null if it is the first one
    true if the events have several item ids

Null or empty values at the end are left out. Fragments are sorted by arrival. A log is read as a set, so a
chunk that is appended twice or out of order changes nothing.
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
"""Minimum bytes of a fragment in a log."""

_ClosingRow = tuple[int, int, int, int, bytes]
"""Milliseconds after base, entry counter, position, rank, text."""

_encode = msgspec.msgpack.Encoder().encode


class CorruptLogError(ValueError):
    """A part's log cannot be decoded: probably another program wrote to its key."""

    def __init__(self) -> None:
        super().__init__(
            "a part's log is not a sequence of chunks; check whether another program writes to this prefix"
        )


class Columns(NamedTuple):
    """Fragments in the order of their arrivals, one column for each property."""

    milliseconds: list[int]
    """Milliseconds of each fragment's entry id. `counters` has the other half of the ids."""
    counters: list[int]
    numbers: list[int | None]
    deltas: list[str]
    positions: list[int] | None = None
    """Position of each fragment in its entry's array; None if all are 0."""

    @property
    def first_number(self) -> int | None:
        """First sequence number, if each number is one more than the previous one; else None."""
        start = self.numbers[0] if self.numbers else None
        if start is None or self.numbers != [*range(start, start + len(self.numbers))]:
            return None
        return start

    @classmethod
    def of(cls, fragments: Iterable[StoredFragment]) -> Columns:
        """Return columns of the fragments, sorted by arrival."""
        ordered = sorted(fragments, key=lambda fragment: fragment.arrival)
        return cls(
            [fragment.arrival.entry.ms for fragment in ordered],
            [fragment.arrival.entry.seq for fragment in ordered],
            [fragment.sequence_number for fragment in ordered],
            [fragment.delta for fragment in ordered],
            [fragment.arrival.position for fragment in ordered],
        )


class _Chunk(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    """A stored chunk; its fields are those of the module's docstring."""

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
        """Decode deltas stored as bytes, and check the columns.

        Raises:
            ValueError: a column does not have `count` values, or the chunk is empty.
        """
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
        """Arrival of the chunk's earliest event."""
        arrivals = [(ms, counter, position) for ms, counter, position, *_ in self.closings]
        if self.offsets:
            arrivals.append((self.offsets[0], self.counters[0], self._position(0)))
        return self._arrival(*min(arrivals))

    @property
    def named_at(self) -> tuple[int, int]:
        """Id of the entry with the item id."""
        return self.first.entry if self.named is None else (self.base_ms + self.named[0], self.named[1])

    @property
    def last_fragment(self) -> Arrival:
        """Arrival of the latest fragment; the chunk must have one."""
        return self.at(-1)

    def at(self, index: int) -> Arrival:
        """Return the arrival of the fragment at this index."""
        return self._arrival(self.offsets[index], self.counters[index], self._position(index))

    def _position(self, index: int) -> int:
        return 0 if self.positions is None else self.positions[index]

    def _arrival(self, ms: int, counter: int, position: int) -> Arrival:
        return Arrival(EntryId(self.base_ms + ms, counter), position)

    @property
    def texts(self) -> list[str]:
        """Deltas as strings. Call `check` first."""
        return self.deltas  # type: ignore[return-value]  # `check` has decoded them

    def fragments(self) -> Iterable[StoredFragment]:
        """Return an iterator over the fragments."""
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
        """Return the closings."""
        return [
            StoredClosing(
                Arrival(EntryId(self.base_ms + ms, counter), position), Rank(rank), from_bytes(text)
            )
            for ms, counter, position, rank, text in self.closings
        ]


_decode_all = msgspec.msgpack.Decoder(list[_Chunk]).decode
_ARRAY32 = b"\xdd"
"""First byte of a MessagePack array with a length of four bytes."""

_decode_halves = msgspec.msgpack.Decoder(list[bytes]).decode


class PartLog:
    """The decoded log of a part: its chunks, read as one set."""

    __slots__ = (
        "_chunks",
        "_last",
        "_lengths",
        "_named",
        "_text_since",
        "began",
        "closings",
        "ids_differ",
        "item_id",
    )

    def __init__(self, chunks: Sequence[_Chunk] = ()) -> None:
        # Batches may be stored in another order than they were read. In the order of their first events the
        # chunks normally need no further sorting.
        by_first = sorted([(chunk.first, chunk) for chunk in chunks], key=itemgetter(0))
        self._chunks = [chunk for _, chunk in by_first]
        self._last = max([chunk.last_fragment for chunk in chunks if chunk.deltas], default=None)
        self.began = by_first[0][0] if by_first else Arrival(EntryId(0, 0), 0)
        """Arrival of the part's earliest event."""
        self._text_since: Arrival | None = None
        self._lengths: tuple[list[Arrival], list[int]] | None = None
        self.closings = [closing for chunk in chunks if chunk.closings for closing in chunk.stored_closings()]
        named = [(chunk.named_at, chunk.item_id) for chunk in chunks if chunk.item_id is not None]
        first = min(named, default=None)
        self._named = None if first is None else first[0]
        self.item_id: str | None = None if first is None else first[1]
        """Item id of the earliest event that has one; None if none has."""
        self.ids_differ = any(chunk.ids_differ for chunk in chunks) or len({name for _, name in named}) > 1
        """True if the events have several item ids: some servers give each event a new one."""

    @property
    def fragments(self) -> list[StoredFragment]:
        """Fragments of all chunks, unsorted, repeats included."""
        return [fragment for chunk in self._chunks for fragment in chunk.fragments()]

    @property
    def arrivals(self) -> set[Arrival]:
        """Arrivals of all fragments and closings."""
        fragments = {fragment.arrival for fragment in self.fragments}
        return fragments.union(closing.arrival for closing in self.closings)

    @property
    def text_since(self) -> Arrival | None:
        """Arrival of the earliest fragment with a non-empty delta; None if there is none."""
        if self._text_since is None:
            firsts = (
                next((chunk.at(n) for n, delta in enumerate(chunk.texts) if delta), None)
                for chunk in self._chunks
            )
            self._text_since = min((first for first in firsts if first is not None), default=None)
        return self._text_since

    def has_fragment(self, until: Arrival) -> bool:
        """Return whether a fragment came at or before this event."""
        return any(chunk.at(0) <= until for chunk in self._chunks if chunk.deltas)

    def length(self, until: Arrival) -> int:
        """Return the UTF-16 length of the text up to and including this event."""
        if self._lengths is None:
            self._lengths = lengths_of(self.fragments)
        arrivals, lengths = self._lengths
        count = bisect_right(arrivals, until)
        return lengths[count - 1] if count else 0

    def item_id_until(self, entry: EntryId) -> str | None:
        """Return the item id, if its event came in this entry or an earlier one; else None."""
        return self.item_id if self._named is not None and self._named <= entry else None

    def assembled(self, until: Arrival | None = None) -> tuple[Assembly, int]:
        """Join the fragments up to and including this event (None: all).

        The second value is the number of fragments that came later.
        """
        if until is None or self._all_until(until):
            return self._joined() or assemble(self.fragments), 0
        distinct = {fragment.arrival: fragment for fragment in self.fragments}.values()
        in_time = [fragment for fragment in distinct if fragment.arrival <= until]
        return assemble(in_time), len(distinct) - len(in_time)

    def _all_until(self, arrival: Arrival) -> bool:
        return self._last is None or self._last <= arrival

    def _joined(self) -> Assembly | None:
        """Join the chunks in order, without sorting.

        Return None unless sequence numbers are consecutive in each chunk and increase from chunk to chunk.
        Such numbers have no repeats.
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
    """Return a chunk with these fragments and closings. It must have at least one of either.

    Args:
        columns: the fragments.
        closings: the closings.
        item_id: the item id of the earliest event that has one; None if an earlier chunk has it.
        named: the entry with the item id; None if it is the chunk's first entry.
        ids_differ: true if events of the part have different item ids.
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
"""Index of the deltas in a chunk's array."""


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
    """Split a log into encoded chunks; return them with the number of fragments of each."""
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
    """Decode all chunks of a log.

    Raises:
        CorruptLogError: the log is not a sequence of chunks.
    """
    try:
        bodies, counts = _bodies(data)
        # One array of all chunks is decoded in a single call.
        chunks = _decode_all(_ARRAY32 + len(bodies).to_bytes(4, "big") + b"".join(bodies))
        for chunk, count in zip(chunks, counts, strict=True):
            chunk.check(count)
        return PartLog(chunks)
    except (
        ValueError,
        IndexError,
    ) as error:  # msgspec's errors and those of a wrong rank or text are ValueErrors
        raise CorruptLogError from error
