"""A part's set, in the form it is stored: a log of chunks, one appended by each batch.

A chunk is a 32-bit length (big endian) and a MessagePack array: base milliseconds, the item id of its
earliest event, the fragments and the closings, their times relative to the base. A chunk that is
appended twice, or out of order, changes nothing: a log is read as a set.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from handlers.core.assembly import StoredClosing, StoredFragment
from handlers.core.effects import Rank
from handlers.core.identity import Arrival, EntryId
from handlers.core.text import from_bytes, to_bytes

_LENGTH_BYTES = 4

# after base: milliseconds, entry counter, position, sequence number, delta
_FragmentRow = tuple[int, int, int, int | None, bytes]
# after base: milliseconds, entry counter, position, rank, text
_ClosingRow = tuple[int, int, int, int, bytes]
_Chunk = tuple[int, str | None, list[_FragmentRow], list[_ClosingRow]]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Chunk)


class CorruptLogError(ValueError):
    """A part's log cannot be read: another program wrote below the worker's prefix."""

    def __init__(self) -> None:
        super().__init__(
            "a part's log is not a sequence of chunks; does another program write to this prefix?"
        )


class PartLog(NamedTuple):
    """Everything that is known of a part."""

    fragments: list[StoredFragment]
    closings: list[StoredClosing]
    item_id: str | None

    @property
    def arrivals(self) -> list[Arrival]:
        """When each of its events came, in no order."""
        return [
            *(fragment.arrival for fragment in self.fragments),
            *(closing.arrival for closing in self.closings),
        ]


def encode_chunk(log: PartLog) -> bytes:
    """One chunk with these events (at least one)."""
    base = min(arrival.entry.ms for arrival in log.arrivals)
    body = _encoder.encode(
        (
            base,
            log.item_id,
            [
                (entry.ms - base, entry.seq, position, number, to_bytes(delta))
                for (entry, position), number, delta in log.fragments
            ],
            [
                (entry.ms - base, entry.seq, position, rank.value, to_bytes(text))
                for (entry, position), rank, text in log.closings
            ],
        )
    )
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def decode_log(data: bytes) -> PartLog:
    """Read all chunks of a log; `CorruptLogError` if they are none. The item id is the earliest chunk's."""
    log = PartLog([], [], None)
    item_ids: list[tuple[Arrival, str]] = []
    offset = 0
    while offset < len(data):
        start = offset + _LENGTH_BYTES
        offset = start + int.from_bytes(data[start - _LENGTH_BYTES : start], "big")
        try:
            chunk = _decode_chunk(data[start:offset])
            first = min(chunk.arrivals)
        except ValueError as error:  # msgspec's errors are, and so is what a wrong rank or text raises
            raise CorruptLogError from error
        log.fragments.extend(chunk.fragments)
        log.closings.extend(chunk.closings)
        if chunk.item_id is not None:
            item_ids.append((first, chunk.item_id))
    return log._replace(item_id=min(item_ids)[1] if item_ids else None)


def _decode_chunk(body: bytes) -> PartLog:
    base, item_id, fragments, closings = _decoder.decode(body)
    return PartLog(
        [
            StoredFragment(Arrival(EntryId(base + ms, seq), position), number, from_bytes(delta))
            for ms, seq, position, number, delta in fragments
        ],
        [
            StoredClosing(Arrival(EntryId(base + ms, seq), position), Rank(rank), from_bytes(text))
            for ms, seq, position, rank, text in closings
        ],
        item_id,
    )
