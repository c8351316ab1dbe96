"""Read a run of small chunks of a log at once, as if they were one chunk.

A response that streams slowly adds one fragment to each batch, so its log has a chunk for each delta. To read
such a log chunk by chunk takes three times as long as to read all columns together.

The head of a chunk is two varints. In a chunk of less than 128 bytes, each is one byte that is also a small
integer in MessagePack. So a run of such chunks is a sequence of MessagePack values, three for each chunk:
bytes, number of fragments, and array. A chunk can be in a run if its array has five items, that is, numbered
fragments and nothing else.
"""

from __future__ import annotations

from itertools import accumulate, chain
from operator import le
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = b"\x95\xcf\x00\x00"
"""First bytes of an array of five items, the first of which is a time in milliseconds (8 bytes, below 2**48).
They are not UTF-8, so no text contains them."""

_OTHER = (b"\x98\xcf\x00\x00", b"\x9a\xcf\x00\x00")
"""First bytes of an array of eight or ten items, that is, of a chunk that cannot be in a run."""

_HEAD = 2
"""Bytes of the head of a small chunk: one with the size of its array, one with its number of fragments."""

_MEAN_BYTES = 64
"""Maximum mean bytes of a chunk in a run, if some of its chunks have several fragments. Larger chunks are
faster to read one by one."""

_ONE_FRAGMENT = b"\x01"
"""Last byte of the head of a chunk of one fragment."""

_ARRAY32 = b"\xdd"
"""First byte of a MessagePack array with a length of four bytes."""

_SingleRow = tuple[int, tuple[int], tuple[int], int, tuple[str]]
"""The columns of a chunk of one fragment: base milliseconds, milliseconds after base, second halves of the
entry ids, first number, deltas."""
_Row = tuple[int, list[int], list[int], int, list[str]]

_decode_singles = msgspec.msgpack.Decoder(list[int | _SingleRow]).decode
_decode_several = msgspec.msgpack.Decoder(list[int | _Row]).decode

_flat = chain.from_iterable


class Run(NamedTuple):
    """The fragments of a run, as columns sorted by arrival.

    The position of each fragment is 0, and each number is one more than the previous one.
    """

    end: int
    """Offset in the log of the first byte after the run."""
    columns: tuple[list[int], list[int], int, list[str]]
    """Milliseconds and second halves of the entry ids, the number of the first fragment, and the deltas."""


def begins_run(data: bytes, offset: int) -> bool:
    """Return whether a run may begin with the chunk that begins at `offset` in the log `data`.

    Only the first bytes of the chunk are compared, so `read_run` may return None all the same.
    """
    return data.startswith(_PLAIN, offset + _HEAD)


def read_run(data: bytes, offset: int) -> Run | None:
    """Read the run that begins at `offset` in the log `data`, where `begins_run` must be true.

    The run goes on as far as its chunks have the same form. Return None, whatever the length of the run, if
    its chunks have to be read one by one: some have several fragments and the mean is above `_MEAN_BYTES`,
    one turns out to be of another form, a fragment is repeated, or the numbers do not increase by one from
    arrival to arrival.
    """
    stops = [stop for each in _OTHER if (stop := data.find(each, offset)) >= 0]
    last = data.rfind(_PLAIN, offset, min(stops, default=len(data)))
    end = last + data[last - _HEAD]
    count = data.count(_PLAIN, offset, end)
    of_singles = data.count(_ONE_FRAGMENT + _PLAIN, offset, end) == count
    if not of_singles and end - offset > _MEAN_BYTES * count:
        return None
    decode: Callable[[bytes], list[Any]] = _decode_singles if of_singles else _decode_several
    try:
        decoded = decode(_ARRAY32 + (3 * count).to_bytes(4, "big") + data[offset:end])
        if sum(decoded[::3]) + _HEAD * count != end - offset:
            return None
        counts, rows = decoded[1::3], decoded[2::3]
        return _run_of_singles(rows, end) if of_singles else _run_of_several(counts, rows, end)
    except (msgspec.MsgspecError, TypeError):  # TypeError: numbers and arrays are not in turn
        return None


def _run_of_singles(rows: list[_SingleRow], end: int) -> Run | None:
    rows.sort()  # by arrival: batches may be stored in another order than they were read
    bases, offsets, seqs, numbers, deltas = zip(*rows, strict=True)
    first, count = numbers[0], len(numbers)
    if numbers != (*range(first, first + count),) or offsets != ((0,),) * count:
        return None
    return Run(end, ([*bases], [*_flat(seqs)], first, [*_flat(deltas)]))


def _run_of_several(counts: list[int], rows: list[_Row], end: int) -> Run | None:
    bases, offsets, seqs, numbers, deltas = zip(*rows, strict=True)
    if not counts == [*map(len, offsets)] == [*map(len, seqs)] == [*map(len, deltas)]:
        return None
    if [*numbers, numbers[-1] + counts[-1]] != [*accumulate(counts, initial=numbers[0])]:
        return None
    milliseconds = [base + ms for base, some in zip(bases, offsets, strict=True) for ms in some]
    flat_seqs = [*_flat(seqs)]
    at = [*zip(milliseconds, flat_seqs, strict=True)]
    if not all(map(le, at, at[1:])):
        return None
    return Run(end, (milliseconds, flat_seqs, numbers[0], [*_flat(deltas)]))
