"""Test how a batch is cut before it is committed."""

from __future__ import annotations

import pytest

from service.pipeline.batch_builder import slices
from service.ports.storage import RawEntry


def entry(number: int, size: int) -> RawEntry:
    """Return an entry with a body of `size` bytes."""
    return RawEntry(f"{number}-0".encode(), [b"event", b"x" * size])


@pytest.mark.parametrize(
    ("sizes", "cut"),
    [
        ([], []),
        ([10, 10, 10], [3]),
        ([40, 40, 40], [2, 1]),
        ([200, 10, 10], [1, 2]),
        ([10, 200, 10], [1, 1, 1]),
    ],
    ids=["nothing", "fits", "too much", "one alone is too large", "in the midst"],
)
def test_a_batch_is_cut_by_bytes_in_order(sizes: list[int], cut: list[int]) -> None:
    """Cut by bytes, and keep all entries in order. Otherwise one command could exceed the server's limit."""
    entries = [entry(number, size) for number, size in enumerate(sizes)]
    cuts = list(slices(entries, 100))
    assert [len(each) for each in cuts] == cut
    assert [each for some in cuts for each in some] == entries
