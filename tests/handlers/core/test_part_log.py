"""Test the log of a part: chunks in any order, read as one set."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handlers.core.assembly import Assembly, StoredClosing, StoredFragment, assemble
from handlers.core.effects import Rank
from handlers.core.identity import Arrival, EntryId
from handlers.core.text import utf16_length
from service.storage.part_codec import decode_log
from tests.strategies import Chunk, arrivals, chunks


def _chunk(ms: int, delta: str = "x", item_id: str | None = None) -> bytes:
    return Chunk([StoredFragment(Arrival(EntryId(ms, 0), 0), ms, delta)], [], item_id).encoded()


@given(st.lists(chunks, min_size=1, max_size=4), st.data())
def test_chunks_make_the_same_set_in_any_order(chunks: list[Chunk], data: st.DataObject) -> None:
    """Decode the same set from chunks in any order, with repeats."""
    again = data.draw(st.lists(st.sampled_from(chunks), max_size=3))
    order = data.draw(st.permutations([*chunks, *again]))
    log = decode_log(b"".join(chunk.encoded() for chunk in order))
    assert set(log.fragments) == {fragment for chunk in chunks for fragment in chunk.fragments}
    assert set(log.closings) == {closing for chunk in chunks for closing in chunk.closings}
    assert log.item_id == decode_log(b"".join(chunk.encoded() for chunk in chunks)).item_id
    assert log.began == min(chunk.began for chunk in chunks)


@given(st.lists(chunks, min_size=1, max_size=4), st.one_of(st.none(), arrivals))
def test_fast_and_slow_path_assemble_alike(chunks: list[Chunk], until: Arrival | None) -> None:
    """Assemble the same text on the fast path and on the slow path."""
    log = decode_log(b"".join(chunk.encoded() for chunk in chunks))
    distinct = {fragment.arrival: fragment for fragment in log.fragments}.values()
    assume(len(distinct) == len(set(log.fragments)))  # valid logs have one fragment per arrival
    in_time = [each for each in distinct if until is None or each.arrival <= until]
    assert log.assembled(until) == (assemble(in_time), len(distinct) - len(in_time))
    if until is not None:
        assert log.has_fragment(until) == bool(in_time)
        assert log.length(until) == utf16_length(assemble(in_time).text)
    speaks = [fragment.arrival for fragment in distinct if fragment.delta]
    assert log.first_text == min(speaks, default=None)


@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=3), min_size=1, max_size=4))
def test_a_text_in_order_is_joined(texts: list[list[str]]) -> None:
    """Assemble a text in order, which is the fast path of nearly all texts."""
    deltas = [delta for some in texts for delta in some]
    numbered = iter(
        [StoredFragment(Arrival(EntryId(n, 0), 0), 7 + n, delta) for n, delta in enumerate(deltas)]
    )
    data = b"".join(Chunk([next(numbered) for _ in some], [], None).encoded() for some in texts)
    assembly, late = decode_log(data).assembled(Arrival(EntryId(len(deltas), 0), 0))
    assert assembly == Assembly("".join(deltas), len(deltas), 0, 7, 6 + len(deltas))
    assert late == 0


def test_item_id_is_the_earliest_chunks() -> None:
    """Use the item id of the earliest chunk that has one."""
    chunks = [_chunk(3, item_id="c"), _chunk(1), _chunk(2, item_id="b")]
    assert decode_log(b"".join(chunks)).item_id == "b"


@pytest.mark.parametrize(
    ("ids", "differ"), [([None, "a", "a"], False), (["a", None, "b"], True), ([None, None], False)]
)
def test_differing_item_ids_are_found_across_chunks(ids: list[str | None], *, differ: bool) -> None:
    """Report item ids that differ between chunks. Otherwise a text could be finished too early."""
    chunks = [_chunk(n, item_id=item_id) for n, item_id in enumerate(ids, 1)]
    assert decode_log(b"".join(chunks)).ids_differ is differ


def test_a_part_begins_with_its_earliest_event() -> None:
    """Begin a part with its earliest event, also if that is a closing."""
    first, second = Arrival(EntryId(1, 0), 0), Arrival(EntryId(2, 0), 1)
    closing = StoredClosing(first, Rank.DONE, "x")
    assert decode_log(Chunk([StoredFragment(second, None, "x")], [closing], None).encoded()).began == first
    assert decode_log(Chunk([], [closing], None).encoded()).began == first
