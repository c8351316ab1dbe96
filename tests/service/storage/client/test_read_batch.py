"""Test the batch to which the reading client adds replies."""

from __future__ import annotations

from service.ports.storage import RawEntry
from service.storage.client.read_batch import ReadBatch


def entry(number: int) -> RawEntry:
    """Return an entry with an id that ends in this number."""
    return RawEntry(b"7-%d" % number, [b"event", b"{}"])


def test_repeated_entries_are_left_out() -> None:
    """Entries that a recreated group delivers again within one batch are dropped; order is kept."""
    batch = ReadBatch(list[RawEntry](), 1)
    for numbers in ([2, 10], [1, 2, 10], [3, 11], [12]):
        batch.add([entry(number) for number in numbers])
    assert [each.id for each in batch.collected] == [b"7-2", b"7-10", b"7-11", b"7-12"]
    assert (batch.entry_count, batch.last_id) == (4, b"7-12")


def test_a_reply_without_new_entries_changes_nothing() -> None:
    """A reply of which all entries are left out does not change the batch's last id or its sizes."""
    batch = ReadBatch(list[RawEntry](), 1)
    batch.add([entry(5)])
    size = batch.entry_bytes
    batch.add([RawEntry(b"7-5", [b"event", b"x" * 1000])])
    assert (batch.entry_count, batch.last_id, batch.entry_bytes) == (1, b"7-5", size)
