"""The stored form of a part's set."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handlers.core.assembly import Assembly, StoredClosing, StoredFragment, assemble
from handlers.core.effects import Rank
from handlers.core.identity import Arrival, EntryId
from handlers.core.log import FRAGMENT_BYTES, Columns, CorruptLogError, decode_log, encode_chunk
from handlers.core.text import utf16_length
from tests.strategies import Chunk, arrivals, chunks


def _chunk(ms: int, delta: str = "x", item_id: str | None = None) -> bytes:
    return Chunk([StoredFragment(Arrival(EntryId(ms, 0), 0), ms, delta)], [], item_id).encoded()


def _framed(row: object, count: int = 0) -> bytes:
    body = row if isinstance(row, bytes) else msgspec.msgpack.encode(row)
    return bytes((len(body), count)) + body


@given(chunks)
def test_one_chunk_is_read_back(chunk: Chunk) -> None:
    """A fragment or a closing would come back as something else: a half, a large number, a far entry."""
    log = decode_log(chunk.encoded())
    assert log.fragments == sorted(chunk.fragments, key=lambda fragment: fragment.arrival)
    assert log.closings == chunk.closings
    assert log.item_id == chunk.item_id
    assert log.began == chunk.began


@given(st.lists(chunks, min_size=1, max_size=4), st.data())
def test_chunks_make_the_same_set_in_any_order(chunks: list[Chunk], data: st.DataObject) -> None:
    """A log would depend on which batch was stored first, or on one stored twice."""
    again = data.draw(st.lists(st.sampled_from(chunks), max_size=3))
    order = data.draw(st.permutations([*chunks, *again]))
    log = decode_log(b"".join(chunk.encoded() for chunk in order))
    assert set(log.fragments) == {fragment for chunk in chunks for fragment in chunk.fragments}
    assert set(log.closings) == {closing for chunk in chunks for closing in chunk.closings}
    assert log.item_id == decode_log(b"".join(chunk.encoded() for chunk in chunks)).item_id
    assert log.began == min(chunk.began for chunk in chunks)


@given(st.lists(chunks, min_size=1, max_size=4), st.one_of(st.none(), arrivals))
def test_the_short_way_joins_as_the_long_way_does(chunks: list[Chunk], until: Arrival | None) -> None:
    """A text would depend on whether its numbers happen to be in order."""
    log = decode_log(b"".join(chunk.encoded() for chunk in chunks))
    distinct = {fragment.arrival: fragment for fragment in log.fragments}.values()
    assume(len(distinct) == len(set(log.fragments)))  # an arrival is one fragment, and always the same
    in_time = [each for each in distinct if until is None or each.arrival <= until]
    assert log.assembled(until) == (assemble(in_time), len(distinct) - len(in_time))
    if until is not None:
        assert log.has_fragment(until) == bool(in_time)
        assert log.length(until) == utf16_length(assemble(in_time).text)
    speaks = [fragment.arrival for fragment in distinct if fragment.delta]
    assert log.speaks_since == min(speaks, default=None)


@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=3), min_size=1, max_size=4))
def test_a_text_in_order_is_joined(texts: list[list[str]]) -> None:
    """The way that nearly all texts take would be taken by none of the examples above."""
    deltas = [delta for some in texts for delta in some]
    numbered = iter(
        [StoredFragment(Arrival(EntryId(n, 0), 0), 7 + n, delta) for n, delta in enumerate(deltas)]
    )
    data = b"".join(Chunk([next(numbered) for _ in some], [], None).encoded() for some in texts)
    assembly, late = decode_log(data).assembled(Arrival(EntryId(len(deltas), 0), 0))
    assert assembly == Assembly("".join(deltas), len(deltas), 0, 7, 6 + len(deltas))
    assert late == 0


def test_item_id_is_the_earliest_chunks() -> None:
    """`item_id` would be that of whichever batch was stored first."""
    chunks = [_chunk(3, item_id="c"), _chunk(1), _chunk(2, item_id="b")]
    assert decode_log(b"".join(chunks)).item_id == "b"


@pytest.mark.parametrize(
    ("ids", "differ"), [([None, "a", "a"], False), (["a", None, "b"], True), ([None, None], False)]
)
def test_whether_item_ids_differ_is_known_of_all_chunks(ids: list[str | None], *, differ: bool) -> None:
    """A text would be taken for certain while its first event, with another item id, is still to come."""
    chunks = [_chunk(n, item_id=item_id) for n, item_id in enumerate(ids, 1)]
    assert decode_log(b"".join(chunks)).ids_differ is differ


def test_a_chunk_says_whether_its_item_ids_differ() -> None:
    """They may all have come in one batch."""
    columns = Columns([1], [0], [1], ["x"])
    assert decode_log(encode_chunk(columns, [], "a", ids_differ=True)).ids_differ
    assert not decode_log(encode_chunk(columns, [], "a", EntryId(1, 0))).ids_differ


def test_a_delta_takes_few_bytes() -> None:
    """Open texts would fill the server: the text's own four bytes, and as many for all the rest."""
    milliseconds = [10**12 + n for n in range(50)]
    columns = Columns(milliseconds, [*range(50)], [*range(50)], ["four"] * 50)
    assert len(encode_chunk(columns, [], None)) < 50 * 8
    assert len(encode_chunk(Columns([10**12], [0], [1], [""]), [], None)) > FRAGMENT_BYTES


def _as_commit_lua_reads(data: bytes, at: int) -> tuple[int, int]:
    """Read a number as `varint` in commit.lua does: a byte from 128 on is followed by another."""
    number, scale = 0, 1
    while data[at] >= 128:
        number += (data[at] - 128) * scale
        scale *= 128
        at += 1
    return number + data[at] * scale, at + 1


@pytest.mark.parametrize("count", [1, 126, 127, 128, 129])
def test_a_chunks_head_is_read_alike_by_commit_lua(count: int) -> None:
    """A head that only Python reads would have the script count millions of fragments, or none."""
    lengths = set()
    for more in range(129):
        columns = Columns([1] * count, [*range(count)], [*range(count)], [""] * (count - 1) + ["x" * more])
        data = encode_chunk(columns, [], None)
        length, at = _as_commit_lua_reads(data, 0)
        fragments, at = _as_commit_lua_reads(data, at)
        assert (length, fragments) == (len(data) - at, count)
        assert len(decode_log(data * 2).fragments) == 2 * count
        lengths.add(length)
    assert count > 1 or {127, 128} < lengths, "lengths on both sides of the border are among them"


def test_a_chunks_head_takes_two_bytes_up_to_the_border() -> None:
    """Every small chunk of an open text would be a byte larger than it need be."""
    body = len(encode_chunk(Columns([1], [0], [1], ["x" * 100]), [], None)) - 2 - 100
    data = encode_chunk(Columns([1], [0], [1], ["x" * (127 - body)]), [], None)
    assert (data[:2], len(data)) == (bytes((127, 1)), 2 + 127)


def test_an_empty_log_has_nothing() -> None:
    """A part whose log has expired would stop its reader."""
    log = decode_log(b"")
    assert (log.fragments, log.closings, log.item_id) == ([], [], None)


def test_a_part_begins_with_its_earliest_event() -> None:
    """A part that has only a `.done`, or that first, would have no beginning, or a wrong one."""
    first, second = Arrival(EntryId(1, 0), 0), Arrival(EntryId(2, 0), 1)
    closing = StoredClosing(first, Rank.DONE, "x")
    assert decode_log(Chunk([StoredFragment(second, None, "x")], [closing], None).encoded()).began == first
    assert decode_log(Chunk([], [closing], None).encoded()).began == first


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
def test_what_is_no_log_is_said_to_be_none(data: bytes) -> None:
    """Another program's bytes would be taken for a text, or end in an error that says nothing."""
    with pytest.raises(CorruptLogError, match="does another program write to this prefix"):
        decode_log(data)
