"""The stored form of a part's set."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core.assembly import StoredClosing, StoredFragment
from handlers.core.effects import Rank
from handlers.core.identity import Arrival, EntryId
from handlers.core.log import CorruptLogError, PartLog, decode_log, encode_chunk
from tests.strategies import part_logs


def _log(ms: int, delta: str = "x", item_id: str | None = None) -> PartLog:
    return PartLog([StoredFragment(Arrival(EntryId(ms, 0), 0), ms, delta)], [], item_id)


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@given(part_logs)
def test_one_chunk_is_read_back(log: PartLog) -> None:
    """A fragment or a closing would come back as something else: a half, a large number, a far entry."""
    assert decode_log(encode_chunk(log)) == log


@given(st.lists(part_logs, min_size=1, max_size=4), st.data())
def test_chunks_make_the_same_set_in_any_order(chunks: list[PartLog], data: st.DataObject) -> None:
    """A log would depend on which batch was stored first, or on one stored twice."""
    again = data.draw(st.lists(st.sampled_from(chunks), max_size=3))
    order = data.draw(st.permutations([*chunks, *again]))
    log = decode_log(b"".join(map(encode_chunk, order)))
    assert set(log.fragments) == {fragment for chunk in chunks for fragment in chunk.fragments}
    assert set(log.closings) == {closing for chunk in chunks for closing in chunk.closings}
    assert log.item_id == decode_log(b"".join(map(encode_chunk, chunks))).item_id


def test_item_id_is_the_earliest_chunks() -> None:
    """`item_id` would be that of whichever batch was stored first."""
    chunks = [encode_chunk(_log(3, item_id="c")), encode_chunk(_log(1)), encode_chunk(_log(2, item_id="b"))]
    assert decode_log(b"".join(chunks)).item_id == "b"


def test_an_empty_log_has_nothing() -> None:
    """A part whose log has expired would stop its reader."""
    assert decode_log(b"") == PartLog([], [], None)


def test_arrivals_are_of_fragments_and_closings() -> None:
    """A part that has only a `.done` would have no beginning."""
    first, second = Arrival(EntryId(1, 0), 0), Arrival(EntryId(2, 0), 1)
    log = PartLog([StoredFragment(second, None, "x")], [StoredClosing(first, Rank.DONE, "x")], None)
    assert set(log.arrivals) == {first, second}


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\x00\x00\x00\x05abc",
        _framed(b""),
        _framed(b"\xc1"),
        _framed(msgspec.msgpack.encode([1, 2])),
        _framed(msgspec.msgpack.encode([1, None, [["x", 0, 0, 0, b""]], []])),
        encode_chunk(_log(1))[:-1],
        encode_chunk(_log(1)) + b"\x00",
        encode_chunk(_log(1)) + b"more",
        _framed(msgspec.msgpack.encode([1, None, [], [[0, 0, 0, 9, b""]]])),
        _framed(msgspec.msgpack.encode([1, None, [[0, 0, 0, 1, b"\xff"]], []])),
        _framed(msgspec.msgpack.encode([1, "it", [], []])),
    ],
)
def test_what_is_no_log_is_said_to_be_none(data: bytes) -> None:
    """Another program's bytes would be taken for a text, or end in an error that says nothing."""
    with pytest.raises(CorruptLogError, match="does another program write to this prefix"):
        decode_log(data)
