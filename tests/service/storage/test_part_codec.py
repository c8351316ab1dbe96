"""Test the storage format of a part's log."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core.assembly import FragmentColumns, StoredFragment
from handlers.core.identity import Arrival, EntryId
from service.storage.part_codec import (
    FRAGMENT_BYTES,
    CorruptLogError,
    decode_log,
    encode_chunk,
    encode_one,
)
from tests.strategies import Chunk, any_text, chunks, entry_ids, sequence_numbers


def _chunk(ms: int, delta: str = "x", item_id: str | None = None) -> bytes:
    return Chunk([StoredFragment(Arrival(EntryId(ms, 0), 0), ms, delta)], [], item_id).encoded()


def _framed(row: object, count: int = 0) -> bytes:
    body = row if isinstance(row, bytes) else msgspec.msgpack.encode(row)
    return bytes((len(body), count)) + body


@given(chunks)
def test_one_chunk_is_read_back(chunk: Chunk) -> None:
    """Decode an encoded chunk unchanged."""
    log = decode_log(chunk.encoded())
    assert log.fragments == sorted(chunk.fragments, key=lambda fragment: fragment.arrival)
    assert log.closings == chunk.closings
    assert log.item_id == chunk.item_id
    assert log.began == chunk.began


@given(entry_ids, sequence_numbers, any_text | st.sampled_from(["x" * 100, "x" * 200]))
def test_a_chunk_of_one_delta_is_encoded_as_described(entry: EntryId, number: int | None, delta: str) -> None:
    """Encode a single delta, which is encoded apart, in the columns that the module's docstring describes."""
    try:
        deltas: object = [delta]
        msgspec.msgpack.encode(deltas)
    except UnicodeEncodeError:
        deltas = msgspec.msgpack.encode([delta.encode("utf-8", "surrogatepass")])
    row = [entry.ms, [0], [entry.seq], [None] if number is None else number, deltas]
    body = msgspec.msgpack.encode(row)
    size = bytes((len(body),)) if len(body) < 128 else bytes((len(body) & 0x7F | 0x80, len(body) >> 7))
    columns = FragmentColumns([entry.ms], [entry.seq], [number], [delta])
    assert encode_chunk(columns, [], None) == size + b"\x01" + body
    if number is not None:
        fits = len(body) < 128 and isinstance(row[-1], list)
        assert encode_one(entry.ms, entry.seq, number, delta) == (size + b"\x01" + body if fits else None)


def test_a_chunk_records_differing_item_ids() -> None:
    """Record item ids that differ within one chunk."""
    columns = FragmentColumns([1], [0], [1], ["x"])
    assert decode_log(encode_chunk(columns, [], "a", ids_differ=True)).ids_differ
    assert not decode_log(encode_chunk(columns, [], "a", EntryId(1, 0))).ids_differ


def test_a_delta_takes_few_bytes() -> None:
    """Encode a short delta in less than eight bytes, and never in less than FRAGMENT_BYTES."""
    milliseconds = [10**12 + n for n in range(50)]
    columns = FragmentColumns(milliseconds, [*range(50)], [*range(50)], ["four"] * 50)
    assert len(encode_chunk(columns, [], None)) < 50 * 8
    assert len(encode_chunk(FragmentColumns([10**12], [0], [1], [""]), [], None)) > FRAGMENT_BYTES


def _as_commit_lua_reads(data: bytes, at: int) -> tuple[int, int]:
    """Read a number as `varint` in commit.lua does: a byte of 128 or more is continued by the next."""
    number, scale = 0, 1
    while data[at] >= 128:
        number += (data[at] - 128) * scale
        scale *= 128
        at += 1
    return number + data[at] * scale, at + 1


@pytest.mark.parametrize("count", [1, 126, 127, 128, 129])
def test_a_chunks_head_is_read_alike_by_commit_lua(count: int) -> None:
    """Encode a chunk's head as commit.lua reads it. Otherwise the script would miscount fragments."""
    lengths = set()
    for more in range(129):
        columns = FragmentColumns(
            [1] * count, [*range(count)], [*range(count)], [""] * (count - 1) + ["x" * more]
        )
        data = encode_chunk(columns, [], None)
        length, at = _as_commit_lua_reads(data, 0)
        fragments, at = _as_commit_lua_reads(data, at)
        assert (length, fragments) == (len(data) - at, count)
        assert len(decode_log(data * 2).fragments) == 2 * count
        lengths.add(length)
    assert count > 1 or {127, 128} < lengths, "lengths on both sides of the border are tested"


def test_a_chunks_head_takes_two_bytes_up_to_the_border() -> None:
    """Encode a head up to the border in two bytes."""
    body = len(encode_chunk(FragmentColumns([1], [0], [1], ["x" * 100]), [], None)) - 2 - 100
    data = encode_chunk(FragmentColumns([1], [0], [1], ["x" * (127 - body)]), [], None)
    assert (data[:2], len(data)) == (bytes((127, 1)), 2 + 127)


def test_an_empty_log_has_nothing() -> None:
    """Decode an empty log, as of a part that has expired."""
    log = decode_log(b"")
    assert (log.fragments, log.closings, log.item_id) == ([], [], None)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\x05\x00abc",
        b"\xff\xff",
        _framed(b""),
        _framed(b"\xc1"),
        _framed([1, 2]),
        _framed([1, ["x"], [0], 1, ["x"]], 1),
        _framed([1, [0], [0], 1, [7]], 1),
        _framed([1, [0], [0], 1, b"\xff"], 1),
        _framed([1, [0], [0, 0], 1, ["x"]], 1),
        _framed([1, [0], [0], [1, 2], ["x"]], 1),
        _framed([1, [0], [0], 1, ["x"], [0, 0]], 1),
        _framed([1, [0], [0], 1, ["x"]], 2),
        _chunk(1)[:-1],
        _chunk(1) + b"\x00",
        _chunk(1) + b"more",
        _framed([1, [], [], [], [], None, None, [[0, 0, 0, 9, b""]]]),
        _framed([1, [], [], [], [], None, None, [[0, 0, 0, 1, b"\xff"]]]),
        _framed([1, [], [], [], [], None, "it"]),
    ],
)
def test_invalid_log_is_refused(data: bytes) -> None:
    """Raise an error for invalid data, which another program may have written."""
    with pytest.raises(CorruptLogError, match="check whether another program writes to this prefix"):
        decode_log(data)


@given(chunks, st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_a_damaged_log_raises_no_other_error(chunk: Chunk, at: int, damage: bytes) -> None:
    """Decode a damaged log, or refuse it with the one error that sets its response aside."""
    data = chunk.encoded()
    try:
        log = decode_log(data[:at] + damage + data[at + len(damage) :])
    except CorruptLogError:
        return
    assert log.fragments or log.closings
