"""Plan the reads of a round trip for a batch: how many, and how many entries each requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.ports.storage import RawEntry

BATCH_BYTES = 2 * 1024 * 1024
"""Approximate maximum bytes that a round trip requests. Of large entries, such as arrays of events, it
requests fewer."""

READ_ENTRIES, READ_BYTES = 500, 192 * 1024
"""Maximum entries of one reply, and their approximate maximum bytes, so that they and the data decoded from
them fit into the processor's cache."""

_GROWTH = 2
"""Maximum ratio of the entries that several reads request to those of the latest batch. So an idle reader
sends one read; with a backlog, batches grow step by step."""

_SAMPLE = 16
"""Approximate number of entries in a sample of entry sizes."""


class ReadPlan(NamedTuple):
    """The reads of a round trip for one batch. A batch that lingers may have several round trips."""

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
    """Return the reads of each round trip for the next batch.

    One read requests between 1 and `READ_ENTRIES` entries, fewer if they are large (`READ_BYTES`). There are
    several reads only if all together request at most `_GROWTH` times the entries of the latest batch, and
    about `BATCH_BYTES` at most.

    Args:
        requested: maximum entries of all reads together, as configured.
        latest_entries: entries of the latest batch; 0 if there was none.
        entry_bytes: approximate bytes of an entry, at least 1.
        entries_at_most: a further maximum of entries of all reads together, or None for no other.
        max_reads: maximum number of reads, at least 1, or None for no limit.
    """
    limit = requested if entries_at_most is None else min(requested, entries_at_most)
    batch = max(1, min(limit, BATCH_BYTES // entry_bytes))
    entries = max(1, min(batch, READ_ENTRIES, READ_BYTES // entry_bytes))
    reads = max(1, min(batch, _GROWTH * latest_entries) // entries)
    return ReadPlan(entries, reads if max_reads is None else min(reads, max_reads))


def bytes_of_entry(entries: Sequence[RawEntry]) -> int:
    """Return the approximate bytes of an entry: 1 plus the mean bytes of names and values of an entry.

    The mean is that of a sample spread over `entries`, which must not be empty.
    """
    sample = entries[:: max(1, len(entries) // _SAMPLE)]
    return 1 + sum([len(value) for _, fields in sample for value in fields]) // len(sample)
