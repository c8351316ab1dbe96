"""Plan the reads of a batch: how many, and how many entries each requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.ports.storage import RawEntry

BATCH_BYTES = 2 * 1024 * 1024
"""Approximate maximum bytes of a batch: with large entries (arrays of events) it has fewer of them."""

READ_ENTRIES, READ_BYTES = 500, 192 * 1024
"""Maximum entries of one reply, and their approximate maximum bytes, so that they and the data decoded from
them fit into the processor's cache."""

_GROWTH = 2
"""Maximum ratio of a batch to the one before. An idle reader sends one read; a backlog gets large batches."""

_SAMPLE = 16
"""Approximate number of entries in a sample of entry sizes."""


class ReadPlan(NamedTuple):
    """The reads of one batch."""

    entries: int
    """Maximum entries that each read requests."""
    reads: int
    """Number of reads, at least 1."""


def plan_reads(
    requested: int,
    *,
    latest_entries: int,
    entry_bytes: int,
    entries_at_most: int | None = None,
    max_reads: int | None = None,
) -> ReadPlan:
    """Return the reads of the next batch. Each requests one entry at least.

    Args:
        requested: maximum entries of a batch, as configured.
        latest_entries: entries of the latest batch; 0 if there was none.
        entry_bytes: approximate bytes of an entry, at least 1.
        entries_at_most: a further maximum of entries, or None.
        max_reads: maximum number of reads, or None.
    """
    limit = requested if entries_at_most is None else min(requested, entries_at_most)
    batch = max(1, min(limit, BATCH_BYTES // entry_bytes))
    entries = max(1, min(batch, READ_ENTRIES, READ_BYTES // entry_bytes))
    reads = max(1, min(batch, _GROWTH * latest_entries) // entries)
    return ReadPlan(entries, reads if max_reads is None else min(reads, max_reads))


def bytes_of_entry(entries: Sequence[RawEntry]) -> int:
    """Return the approximate bytes of an entry: 1 plus the mean of a sample spread over the entries."""
    sample = entries[:: max(1, len(entries) // _SAMPLE)]
    return 1 + sum([len(value) for _, fields in sample for value in fields]) // len(sample)
