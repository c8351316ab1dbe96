"""Test that a run of small chunks is read exactly as its chunks would be, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers.core.assembly import FragmentColumns, StoredClosing, StoredFragment
from handlers.core.effects import Rank
from handlers.core.identity import Arrival, EntryId
from service.storage import part_codec
from service.storage.chunk_runs import begins_run, read_run
from service.storage.part_codec import CorruptLogError, decode_log, encode_chunk
from tests.strategies import any_text, columns_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from handlers.core.part_log import PartLog

NOW = 1_790_000_000_000
"""A time in milliseconds, as entries have it."""

ids = st.builds(EntryId, st.integers(NOW, NOW + 3), st.integers(0, 3)) | st.builds(
    EntryId, st.integers(1, 2**49), st.integers(0, 2**64 - 1)
)


def chunk(
    fragments: list[StoredFragment], closings: list[StoredClosing] | None = None, item_id: str | None = None
) -> bytes:
    """Return a chunk as a batch adds it: without positions if all are 0."""
    columns = columns_of(fragments)
    return encode_chunk(
        columns if any(columns.positions or ()) else columns._replace(positions=None), closings or [], item_id
    )


def fragment(ms: int, number: int, delta: str = "x") -> StoredFragment:
    """Return a fragment that arrived `ms` milliseconds after `NOW`."""
    return StoredFragment(Arrival(EntryId(NOW + ms, 0), 0), number, delta)


def deltas_in_turn(*texts: str, first: int = 7) -> list[bytes]:
    """Return a chunk for each delta of a text, with consecutive numbers."""
    return [chunk([fragment(n, first + n, text)]) for n, text in enumerate(texts)]


@st.composite
def logs(draw: st.DrawFn) -> list[bytes]:
    """Draw the chunks of a log: most are small and plain, some have more, are out of order, or come twice."""
    positions = st.just(0) if draw(st.booleans()) else st.integers(0, 2)
    at = sorted(draw(st.sets(st.builds(Arrival, ids, positions), min_size=1, max_size=12)))
    first = draw(st.integers(0, 300) | st.integers(-(2**63), 2**62))
    numbers: list[int | None] = [*range(first, first + len(at))]
    if draw(st.booleans()):
        numbers[draw(st.integers(0, len(at) - 1))] = draw(st.none() | st.just(first + 1))
    left = [
        StoredFragment(arrival, number, draw(any_text if draw(st.booleans()) else st.just("word")))
        for arrival, number in zip(at, numbers, strict=True)
    ]
    sizes = st.just(1) if draw(st.booleans()) else st.integers(1, 4)
    chunks: list[bytes] = []
    while left:
        size = draw(sizes)
        some, left = left[:size], left[size:]
        usual = draw(st.integers(0, 5)) > 0
        closing = StoredClosing(some[-1].arrival, Rank.DONE, draw(any_text) * 20)
        closings = [] if usual else draw(st.sampled_from([[], [closing]]))
        chunks.append(chunk(some, closings, None if usual else draw(st.sampled_from(["msg_1", "msg_2"]))))
    if draw(st.booleans()):
        chunks += draw(st.lists(st.sampled_from(chunks), max_size=2))
    return draw(st.permutations(chunks)) if draw(st.booleans()) else chunks


def one_by_one(data: bytes) -> PartLog:
    """Return a log that was read without runs."""
    with patch.object(part_codec, "begins_run", lambda *_: False):
        return decode_log(data)


def answers(log: PartLog, until: list[Arrival]) -> dict[str, object]:
    """Return all that a log says about its part up to each of these events."""
    return {
        "fragments": set(log.fragments),
        "arrivals": log.arrivals,
        "closings": sorted(log.closings),
        "began": log.began,
        "item": (log.item_id, log.ids_differ),
        "first text": log.first_text,
        "all": log.assembled(),
        **{
            f"until {at}": (
                log.assembled(at),
                log.has_fragment(at),
                log.length(at),
                log.item_id_until(at.entry),
            )
            for at in until
        },
    }


def read_with(decode: Callable[[bytes], PartLog], data: bytes) -> object:
    """Return the answers of a log, or None if it is corrupt."""
    try:
        log = decode(data)
    except CorruptLogError:
        return None
    return answers(log, sorted(log.arrivals))


@given(logs())
@example(deltas_in_turn("a", "b", "c"))
@example([*reversed(deltas_in_turn("a", "b", "c"))])
@example(deltas_in_turn("a", "b") * 2)
@example([chunk([fragment(5, 7)]), chunk([fragment(1, 8)])])
@example([chunk([fragment(5, 7), fragment(6, 8)]), chunk([fragment(1, 9)])])
@example(
    [*deltas_in_turn("a", "b"), chunk([], [StoredClosing(Arrival(EntryId(NOW, 9), 0), Rank.DONE, "x" * 200)])]
)
@example([*deltas_in_turn("a", "b"), *deltas_in_turn("c" * 200, first=9), *deltas_in_turn("d", first=10)])
def test_runs_are_read_as_their_chunks(chunks: list[bytes]) -> None:
    """Give the same answers for runs and for their chunks, in any order and with repeats."""
    data = b"".join(chunks)
    assert read_with(decode_log, data) == read_with(one_by_one, data)


def test_the_usual_log_is_read_as_one_run() -> None:
    """Read the deltas between the first chunk, which has the item id, and the closing as one run."""
    texts = [*"The usual", " 東京", "", "👋"]
    first, *rest = deltas_in_turn(*texts)
    beginning = chunk([StoredFragment(Arrival(EntryId(NOW - 1, 0), 0), 6, "!")], [], "msg_1")
    run = read_run(b"".join((beginning, first, *rest)), len(beginning))
    assert run is not None
    milliseconds, seqs, number, deltas = run.columns
    assert milliseconds == [*range(NOW, NOW + len(texts))]
    assert (seqs, number, deltas) == ([0] * len(texts), 7, texts)
    assert run.end == len(beginning) + len(b"".join((first, *rest)))


def test_a_run_may_have_been_stored_in_another_order() -> None:
    """Sort the deltas that several workers have stored."""
    run = read_run(b"".join(reversed(deltas_in_turn(*"abc"))), 0)
    assert run is not None
    assert run.columns == ([NOW, NOW + 1, NOW + 2], [0] * 3, 7, [*"abc"])


def test_a_run_may_have_several_fragments_in_a_chunk() -> None:
    """Read chunks of one, two and three deltas as one run."""
    fragments = [StoredFragment(Arrival(EntryId(NOW + n // 2, n % 2), 0), n, str(n)) for n in range(6)]
    run = read_run(b"".join(map(chunk, (fragments[:2], fragments[2:3], fragments[3:]))), 0)
    assert run is not None
    assert run.columns == ([NOW, NOW, NOW + 1, NOW + 1, NOW + 2, NOW + 2], [0, 1] * 3, 0, [*"012345"])


def test_a_run_ends_before_other_chunks() -> None:
    """End a run at the first chunk with an item id, a closing or positions."""
    deltas = deltas_in_turn("a", "b")
    at = Arrival(EntryId(NOW + 5, 0), 0)
    differing = encode_chunk(FragmentColumns([NOW], [0], [9], ["c"]), [], "msg_2", ids_differ=True)
    for other in (
        chunk([StoredFragment(at, 9, "c")], [], "msg_2"),
        chunk([StoredFragment(at, 9, "c")], [StoredClosing(at, Rank.DONE, "abc" * 99)]),
        chunk([StoredFragment(at._replace(position=1), 9, "c")]),
        differing,
    ):
        data = b"".join((*deltas, other, *deltas_in_turn("d", first=10)))
        run = read_run(data, 0)
        assert run is not None
        assert run.end == len(b"".join(deltas))
        assert not begins_run(data, run.end)


@pytest.mark.parametrize(
    "chunks",
    [
        deltas_in_turn("a", "b") * 2,
        [*deltas_in_turn("a"), *deltas_in_turn("b", first=9)],
        [*reversed(deltas_in_turn("a", "b", first=7)), *deltas_in_turn("c", first=20)],
        [chunk([StoredFragment(Arrival(EntryId(NOW, 0), 0), None, "no number")])],
        deltas_in_turn("\ud83d", "\ude00"),
        [chunk([fragment(n, n, "word") for n in range(first, first + 7)]) for first in (0, 7)],
    ],
)
def test_other_logs_are_left_to_be_read_chunk_by_chunk(chunks: list[bytes]) -> None:
    """Leave repeats, gaps, missing numbers, lone surrogates and large chunks to the general way."""
    assert read_run(b"".join(chunks), 0) is None


@given(st.data(), st.integers(1, 3))
def test_a_damaged_run_raises_no_other_error(data: st.DataObject, size: int) -> None:
    """Read a damaged log, or refuse it with `CorruptLogError`, exactly as if it was read one by one."""
    fragments = [StoredFragment(Arrival(EntryId(NOW + n, 0), 0), n, "word") for n in range(6)]
    log = b"".join(chunk(fragments[first : first + size]) for first in range(0, 6, size))
    at = data.draw(st.integers(0, len(log) - 1))
    damage = data.draw(
        st.binary(min_size=1, max_size=4) | st.sampled_from([b"\x95", b"\xcf", b"\x91\x00", b"\x01"])
    )
    log = log[:at] + damage + log[at + len(damage) :]
    assert read_with(decode_log, log) == read_with(one_by_one, log)


def test_each_chunk_of_a_run_is_checked() -> None:
    """Refuse chunks with columns of different lengths, though the columns of the run have the same length."""
    rows = [[NOW, [0], [0, 1], 7, ["a", "b"]], [NOW + 1, [0, 1], [0], 9, ["c", "d"]]]
    bodies = [msgspec.msgpack.encode(row) for row in rows]
    log = b"".join(bytes((len(body), 2)) + body for body in bodies)
    with pytest.raises(CorruptLogError):
        decode_log(log)
