"""Encode and decode the log of a part: a sequence of chunks, of which each batch appends one.

A chunk has two varints (seven bits per byte, lowest bits first) and a MessagePack array. The varints are the
number of bytes of the array and the number of fragments. The array has columns, because most fragments differ
only in their delta. Its items:

    base milliseconds
    milliseconds after base, one per fragment
    second halves of the entry ids, one per fragment
    sequence numbers, one per fragment; or only the first, if each is one more than the previous one
    deltas, one per fragment; if any has a lone surrogate, which UTF-8 cannot encode, all of them as bytes in
        a nested MessagePack array, which is itself stored as bytes
    positions in the entry's array, one per fragment; null if all are 0
    item id of the earliest event that has one; null if no event has one, or if this process sent it in
        an earlier chunk
    closings: (milliseconds after base, second half, position, rank, text)
    milliseconds after base and second half of the entry that gave the item id; null if it is the first one
    true if the events have several item ids

Null or empty values at the end are left out. Fragments are sorted by arrival. A log is read as a set, so a
chunk that is appended twice or out of order changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from handlers.core.assembly import StoredClosing, StoredFragment
from handlers.core.effects import Rank
from handlers.core.identity import Arrival, EntryId
from handlers.core.part_log import PartLog
from service.storage.chunk_runs import begins_run, read_run
from service.storage.text_bytes import from_bytes, to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.core.assembly import FragmentColumns

FRAGMENT_BYTES = 3
"""Minimum bytes of a fragment in a log."""

_ClosingRow = tuple[int, int, int, int, bytes]
"""Milliseconds after base, second half, position, rank, text."""

_encode = msgspec.msgpack.Encoder().encode


class CorruptLogError(ValueError):
    """A part's log cannot be decoded: probably another program wrote to its key."""

    def __init__(self) -> None:
        super().__init__(
            "a part's log is not a sequence of chunks; check whether another program writes to this prefix"
        )


class _StoredChunk(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    """A stored chunk. The module's docstring describes its fields.

    It implements `handlers.core.part_log.Chunk` itself, because converting all fragments of a text would take
    longer than joining them.
    """

    base_ms: int
    offsets: list[int]
    seqs: list[int]
    numbers: int | list[int | None]
    deltas: list[str] | bytes
    positions: list[int] | None = None
    item_id: str | None = None
    closings: list[_ClosingRow] = msgspec.field(default_factory=list)
    entry_of_item_id: tuple[int, int] | None = None
    ids_differ: bool = False

    def decode_and_check(self, count: int) -> None:
        """Decode the deltas in place if they are stored as bytes, and check the columns.

        Raises:
            ValueError: a column does not have `count` values, or the chunk has neither fragment nor closing.
            MsgspecError: the bytes of the deltas are no MessagePack array of bytes.
        """
        if isinstance(self.deltas, bytes):
            self.deltas = [from_bytes(delta) for delta in _decode_delta_bytes(self.deltas)]
        numbers, positions = self.numbers, self.positions
        if not (
            count == len(self.offsets) == len(self.seqs) == len(self.deltas)
            and (positions is None or len(positions) == count)
            and (isinstance(numbers, int) or len(numbers) == count)
            and (count or self.closings)
        ):
            raise ValueError

    @property
    def first(self) -> Arrival:
        """Arrival of the chunk's earliest event."""
        if not self.closings:
            return self._at(0)
        ms, counter, position, *_ = min(self.closings)
        first = Arrival.at(self.base_ms + ms, counter, position)
        return min(first, self._at(0)) if self.deltas else first

    @property
    def item_id_entry(self) -> tuple[int, int]:
        """Id of the entry that gave the item id: milliseconds and counter. Meaningless without an item id."""
        return (
            self.first.entry
            if self.entry_of_item_id is None
            else (self.base_ms + self.entry_of_item_id[0], self.entry_of_item_id[1])
        )

    @property
    def first_fragment(self) -> Arrival | None:
        """Arrival of the earliest fragment; None without fragments."""
        return self._at(0) if self.deltas else None

    @property
    def last_fragment(self) -> Arrival | None:
        """Arrival of the latest fragment; None without fragments."""
        return self._at(-1) if self.deltas else None

    @property
    def first_text(self) -> Arrival | None:
        """Arrival of the earliest fragment with a non-empty delta; None if there is none."""
        for n, delta in enumerate(self.delta_strings):
            if delta:
                return self._at(n)
        return None

    def _at(self, index: int) -> Arrival:
        return Arrival.at(
            self.base_ms + self.offsets[index],
            self.seqs[index],
            0 if self.positions is None else self.positions[index],
        )

    @property
    def delta_strings(self) -> list[str]:
        """Deltas as strings. Call `decode_and_check` first."""
        return self.deltas  # type: ignore[return-value]  # `decode_and_check` has decoded them

    def fragments(self) -> Iterable[StoredFragment]:
        """Return an iterator over the fragments, in the order of their arrivals."""
        count, numbers = len(self.deltas), self.numbers
        return (
            StoredFragment(Arrival.at(self.base_ms + ms, counter, position), number, delta)
            for ms, counter, position, number, delta in zip(
                self.offsets,
                self.seqs,
                [0] * count if self.positions is None else self.positions,
                range(numbers, numbers + count) if isinstance(numbers, int) else numbers,
                self.delta_strings,
                strict=True,
            )
        )

    def stored_closings(self) -> list[StoredClosing]:
        """Return the decoded closings, in the order in which they are stored.

        Raises:
            ValueError: a rank or a text is invalid.
        """
        return [
            StoredClosing(Arrival.at(self.base_ms + ms, counter, position), Rank(rank), from_bytes(text))
            for ms, counter, position, rank, text in self.closings
        ]


_decode_all = msgspec.msgpack.Decoder(list[_StoredChunk]).decode
_ARRAY32 = b"\xdd"
"""First byte of a MessagePack array with a length of four bytes."""

_decode_delta_bytes = msgspec.msgpack.Decoder(list[bytes]).decode

_INVALID = (msgspec.MsgspecError, ValueError, IndexError)
"""Errors from invalid data: of msgspec; of a wrong rank, text or column; of data that ends too early."""


_VARINT_LIMIT = 0x80
"""First number that does not fit into one byte of a varint."""

_NO_OFFSET = (0,)

_HEADS_OF_ONE = [bytes((length, 1)) for length in range(_VARINT_LIMIT)]
"""The two varints of a chunk of one fragment, by the number of bytes of its array."""

_DELTAS = 4
"""Index of the deltas in a chunk's array."""


def encode_chunk(
    columns: FragmentColumns,
    closings: Sequence[StoredClosing],
    item_id: str | None,
    entry_of_item_id: EntryId | None = None,
    *,
    ids_differ: bool = False,
) -> bytes:
    """Return an encoded chunk, with its head. It must have at least one fragment or closing.

    Args:
        columns: the fragments, sorted by arrival.
        closings: the closings, in any order.
        item_id: the item id of the earliest event that has one; None if no event
            has one, or if this process sent it in an earlier chunk.
        entry_of_item_id: the entry that gave the item id; None if it is the chunk's first entry, or without
            an item id.
        ids_differ: true if events of the part have different item ids.
    """
    milliseconds, seqs, numbers, deltas, positions = columns
    count = len(deltas)
    base = milliseconds[0] if count else min(closing.arrival.entry.ms for closing in closings)
    start = columns.first_number
    offsets = [ms - base for ms in milliseconds]
    chunk: list[Any] = [base, offsets, seqs, numbers if start is None else start, deltas]
    if closings or item_id is not None or positions is not None:
        chunk.append(positions)
        chunk.append(item_id)
        chunk.append(
            [(at.ms - base, at.seq, n, rank.value, to_bytes(text)) for (at, n), rank, text in closings]
        )
        if entry_of_item_id is not None or ids_differ:
            chunk.append(
                None if entry_of_item_id is None else (entry_of_item_id.ms - base, entry_of_item_id.seq)
            )
            chunk.append(ids_differ)
    try:
        body = _encode(chunk)
    except UnicodeEncodeError:
        chunk[_DELTAS] = _encode([to_bytes(delta) for delta in deltas])
        body = _encode(chunk)
    length = len(body)
    if length < _VARINT_LIMIT and count < _VARINT_LIMIT:
        return bytes((length, count)) + body
    return _varint(length) + _varint(count) + body


def encode_one(ms: int, seq: int, number: int, delta: str) -> bytes | None:
    """Return the chunk that `encode_chunk` returns for a single fragment, in a fraction of the time.

    The fragment has the sequence number `number`, and is the event at position 0 of the entry `<ms>-<seq>`.
    The chunk has no closing and no item id. Return None if the chunk's array would have 128 bytes or more, or
    if the delta has a lone surrogate: then call `encode_chunk`.
    """
    try:
        body = _encode((ms, _NO_OFFSET, (seq,), number, (delta,)))
    except UnicodeEncodeError:
        return None
    length = len(body)
    return _HEADS_OF_ONE[length] + body if length < _VARINT_LIMIT else None


def _varint(number: int) -> bytes:
    if number < _VARINT_LIMIT:
        return bytes((number,))
    return bytes((number & 0x7F | 0x80,)) + _varint(number >> 7)


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    number = shift = 0
    while (byte := data[offset]) & 0x80:
        number |= (byte & 0x7F) << shift
        shift += 7
        offset += 1
    return number | byte << shift, offset + 1


def _split(data: bytes) -> tuple[list[_StoredChunk], list[bytes], list[int]]:
    """Split a log into its chunks.

    Returns:
        Three lists: the runs of small chunks, each decoded as one chunk; the arrays of the other chunks,
        still encoded; and the number of fragments of each array. Runs are no longer in order with other
        chunks.

    Raises:
        IndexError: the log ends within the head of a chunk. A truncated array raises no error here.
    """
    runs, encoded, counts = [], [], []
    offset, with_runs = 0, True
    while offset < len(data):
        if with_runs and begins_run(data, offset):
            run = read_run(data, offset)
            if run is not None:
                runs.append(_StoredChunk(0, *run.columns))
                offset = run.end
                continue
            with_runs = False  # so that no chunk is read more than twice
        length, count = data[offset], data[offset + 1]
        if length < _VARINT_LIMIT and count < _VARINT_LIMIT:
            offset += 2
        else:
            length, offset = _read_varint(data, offset)
            count, offset = _read_varint(data, offset)
        encoded.append(data[offset : offset + length])
        counts.append(count)
        offset += length
    return runs, encoded, counts


def decode_log(data: bytes) -> PartLog:
    """Decode the log of a part; an empty log has no fragments and no closings.

    Raises:
        CorruptLogError: the log is not a sequence of valid chunks.
    """
    try:
        runs, encoded, counts = _split(data)
        # One array of all chunks is decoded in a single call.
        chunks = _decode_all(_ARRAY32 + len(encoded).to_bytes(4, "big") + b"".join(encoded))
        for chunk, count in zip(chunks, counts, strict=True):
            chunk.decode_and_check(count)
        closings = [closing for chunk in chunks if chunk.closings for closing in chunk.stored_closings()]
        return PartLog([*runs, *chunks], closings)
    except _INVALID as error:
        raise CorruptLogError from error
