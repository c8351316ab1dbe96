"""Test how many entries a worker reads at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ports.storage import RawEntry
from service.storage.client.read_plan import (
    BATCH_BYTES,
    READ_BYTES,
    READ_ENTRIES,
    ReadPlan,
    bytes_of_entry,
    plan_reads,
)

SMALL = 300
"""Bytes of an entry that no limit of bytes affects."""


@pytest.mark.parametrize(
    ("latest_entries", "reads"),
    [(0, 1), (1, 1), (READ_ENTRIES // 2, 1), (READ_ENTRIES, 2), (2 * READ_ENTRIES, 4), (5000, 13)],
)
def test_a_batch_has_at_most_twice_the_entries_of_the_one_before(latest_entries: int, reads: int) -> None:
    """An idle reader sends one read; a reader with a backlog sends more, up to the limit of bytes."""
    plan = plan_reads(10_000, latest_entries=latest_entries, entry_bytes=SMALL)
    assert plan == ReadPlan(READ_ENTRIES, reads)


def test_a_small_batch_is_one_read() -> None:
    """Request no more entries than are configured, also in a backlog."""
    assert plan_reads(3, latest_entries=3, entry_bytes=SMALL) == ReadPlan(3, 1)


def test_large_entries_are_read_in_small_replies() -> None:
    """Count large entries by their bytes. Otherwise their data would not fit into the processor's cache."""
    plan = plan_reads(10_000, latest_entries=10_000, entry_bytes=READ_BYTES // 2)
    assert plan == ReadPlan(2, BATCH_BYTES // READ_BYTES)


def test_an_entry_above_all_limits_is_read() -> None:
    """Request one entry at least. Otherwise a reader would never get past a huge one."""
    assert plan_reads(10_000, latest_entries=9, entry_bytes=100 * BATCH_BYTES) == ReadPlan(1, 1)


def test_a_slow_worker_reads_fewer_entries() -> None:
    """Keep to the limit of the scheduler. Otherwise a slow batch would be followed by one as slow."""
    plan = plan_reads(10_000, latest_entries=10_000, entry_bytes=SMALL, entries_at_most=1700)
    assert plan == ReadPlan(READ_ENTRIES, 3)


def test_a_batch_can_be_limited_to_one_read() -> None:
    """Keep to the maximum number of reads."""
    plan = plan_reads(10_000, latest_entries=10_000, entry_bytes=SMALL, max_reads=1)
    assert plan == ReadPlan(READ_ENTRIES, 1)


@given(
    st.integers(1, 100_000),
    st.integers(0, 100_000),
    st.integers(1, 4 * BATCH_BYTES),
    st.none() | st.integers(1, 100_000),
)
def test_no_plan_exceeds_a_limit(
    requested: int, latest_entries: int, entry_bytes: int, entries_at_most: int | None
) -> None:
    """A plan requests an entry at least, and keeps all limits unless it is for a single entry."""
    plan = plan_reads(
        requested, latest_entries=latest_entries, entry_bytes=entry_bytes, entries_at_most=entries_at_most
    )
    entries = plan.entries * plan.reads
    assert plan.entries >= 1
    assert plan.reads >= 1
    assert entries <= requested
    assert entries_at_most is None or entries <= entries_at_most
    assert plan.entries <= READ_ENTRIES
    assert plan.entries == 1 or plan.entries * entry_bytes <= READ_BYTES
    assert entries == 1 or entries * entry_bytes <= BATCH_BYTES
    assert plan.reads == 1 or entries <= 2 * latest_entries


@given(st.integers(1, 100_000), st.integers(0, 50_000), st.integers(1, 4 * BATCH_BYTES))
def test_a_larger_backlog_never_gets_a_smaller_batch(
    requested: int, latest_entries: int, entry_bytes: int
) -> None:
    """Read no fewer entries after a batch that had more."""
    plans = [
        plan_reads(requested, latest_entries=entries, entry_bytes=entry_bytes)
        for entries in (latest_entries, latest_entries + 1)
    ]
    assert plans[0].reads <= plans[1].reads
    assert plans[0].entries == plans[1].entries


@given(st.lists(st.lists(st.binary(max_size=50), max_size=6), min_size=1, max_size=100))
def test_the_size_of_an_entry_lies_between_the_smallest_and_the_largest(sizes: list[list[bytes]]) -> None:
    """The mean is at least 1, since sizes divide by it, and no sample is empty."""
    entries = [RawEntry(b"1-%d" % number, fields) for number, fields in enumerate(sizes)]
    each = [1 + sum(map(len, fields)) for fields in sizes]
    assert min(each) <= bytes_of_entry(entries) <= max(each)


def test_the_size_of_an_entry_is_that_of_a_sample() -> None:
    """Look at some 16 entries of a reply, since a look at each would cost as much as decoding it."""
    looked_at = 0

    class Fields(list[bytes]):
        def __iter__(self) -> object:  # type: ignore[override]
            nonlocal looked_at
            looked_at += 1
            return super().__iter__()

    entries = [RawEntry(b"1-%d" % number, Fields([b"event", b"{}"])) for number in range(READ_ENTRIES)]
    assert bytes_of_entry(entries) == 8
    assert looked_at <= 17
