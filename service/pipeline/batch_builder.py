"""Build the batches of one read: first those of small entries, then those of large ones.

A read is one call of `ReadingClient.xreadgroup`, which may send several commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom import limits
from handlers.core.identity import EntryId, StreamKey
from service.pipeline.decoded_batch import DecodedBatch, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.pipeline.columns import Column, ColumnKey
    from service.pipeline.decoded_batch import Rules
    from service.ports.storage import RawEntry

LARGE_ENTRY_BYTES = 16 * 1024
"""Bytes of names and values above which an entry is large.

Large entries are processed after the others that were read with them, and storage records their owner if it
is known. An entry that begins with the field `event`, and is read before the first large one, counts as small
if its event is small.
"""

NO_OWNER = StreamKey("item", "")
"""Owner of an entry that is too large to decode and names no response. Such an entry becomes a dead
letter, so no text has to wait for it."""

LARGE_BATCH_BYTES = 128 * 1024
"""Maximum bytes of a batch of large entries, unless a single entry is larger."""


class BatchBuilder:
    """The entries of one read, divided into batches: small entries first, deferred ones last.

    `extend` decodes small entries at once, into batches of at most `max_bytes`. It defers large entries, so
    that the others need not wait for them; `batches` decodes these, and several share a batch of up to
    `LARGE_BATCH_BYTES`. Once a large entry is deferred, later entries of the same owner are deferred too, and
    entries without a known owner count as entries of one owner. The order of processing changes no text.
    """

    def __init__(self, rules: Rules, max_bytes: int, replication_id: str = "", read_ms: int = 0) -> None:
        self._rules = rules
        self._max_bytes = max_bytes
        self.replication_id = replication_id
        """Replication id that storage had reported when the read began; empty if none."""
        self.read_ms = read_ms
        """Server time in ms since the epoch, shortly before the read; 0 if it was not known."""
        self.owners: dict[bytes, StreamKey] = {}
        """Owners for storage to record, by id of a deferred entry: the response that the entry names.

        An entry without a known owner is missing, unless it is too large to decode: then it has `NO_OWNER`.
        """
        self._small: list[DecodedBatch] = []
        self._unowned: list[RawEntry] = []
        """Deferred entries without a known owner: they hold back all texts, so they come first."""
        self._large: list[RawEntry] = []
        self._too_large: list[RawEntry] = []
        """Entries that are too large to decode. They come last."""
        self._deferred_size = 0
        self._deferred_owners: set[StreamKey | None] = set()
        """Owners of the entries in `_unowned` and `_large`; None stands for an unknown owner.

        Later entries of the same owner are deferred too, so that the text of an opening alert begins with the
        first delta.
        """

    def __len__(self) -> int:
        return sum(map(len, self._deferred)) + sum(map(len, self._small))

    @property
    def ids(self) -> list[bytes]:
        """Ids of all entries, as the server sent them, in ascending order."""
        if len(self._small) == 1 and not self._deferred_size:
            return self._small[0].ids
        ids = [each for batch in self._small for each in batch.ids]
        ids += [entry_id for some in self._deferred for entry_id, _ in some]
        return sorted(ids, key=lambda each: EntryId.parse(each.decode()))

    @property
    def batches(self) -> list[DecodedBatch]:
        """Batches in the order in which they are to be processed, none of them empty.

        Each access decodes the deferred entries again, so read it once, after the last `extend`.
        """
        small = [batch for batch in self._small if len(batch)]
        cut = (some for entries in self._deferred for some in slices(entries, LARGE_BATCH_BYTES))
        large = [DecodedBatch.of(self._rules, some) for some in cut]
        for batch in large:
            batch.has_large = True
        return [*small, *large]

    @property
    def _deferred(self) -> tuple[list[RawEntry], ...]:
        return self._unowned, self._large, self._too_large

    @property
    def has_large(self) -> bool:
        """True if entries are deferred: large ones, or later ones of the same owner."""
        return self._deferred_size > 0

    @property
    def size(self) -> int:
        """Bytes of all entries. Of an entry with all events in columns, only its JSON counts."""
        return self._deferred_size + sum(batch.size for batch in self._small)

    @property
    def column_count(self) -> int:
        """Number of columns in the batches of small entries, so without the deferred entries."""
        return sum(len(batch.columns) for batch in self._small)

    def columns(self) -> Iterator[tuple[ColumnKey, Column]]:
        """Yield the columns in the batches of small entries, with their keys. Batches may share a key."""
        for batch in self._small:
            yield from batch.columns.items()

    def handled_types(self) -> Iterator[str]:
        """Yield the types of the events in small entries that need their handler, one for each event.

        Events on the slow path and in deferred entries are missing.
        """
        for batch in self._small:
            for event in batch.needs_handler:
                yield event.event_type

    def extend(self, entries: Sequence[RawEntry]) -> None:
        """Add entries in the order of their ids: decode small ones, defer the others (see the class).

        Entries of later calls must have later ids.
        """
        if not self._small:
            self._small.append(DecodedBatch(self._rules))
        last = self._small[-1]
        # After a deferred entry, the owner of each later one is checked.
        count = 0 if self._deferred_size else last.add(entries, LARGE_ENTRY_BYTES)
        if count < len(entries):
            last.add(self._defer_large(entries[count:]))
        if last.size > self._max_bytes:
            self._small[-1:] = [
                DecodedBatch.of(self._rules, some) for some in slices(last.raws(), self._max_bytes)
            ]

    def _defer_large(self, entries: Sequence[RawEntry]) -> list[RawEntry]:
        """Defer large entries and later ones of their owners, and record the owners; return the others.

        Entries that earlier calls have deferred count as well.
        """
        small = []
        for entry in entries:
            size, owner = size_of(entry), _owner_of(entry)
            if size > self._rules.max_entry_bytes:
                self._too_large.append(entry)
                self.owners[entry[0]] = owner or NO_OWNER
            elif size > LARGE_ENTRY_BYTES or owner in self._deferred_owners:
                (self._unowned if owner is None else self._large).append(entry)
                self._deferred_owners.add(owner)
                if owner is not None:
                    self.owners[entry[0]] = owner
            else:
                small.append(entry)
                continue
            self._deferred_size += size
        return small


def _owner_of(entry: RawEntry) -> StreamKey | None:
    """Return the response that the field `response_id` of an entry names.

    None means that the slow path has to find out: the field is missing or repeated, or its value is empty,
    too long, or not printable ASCII.
    """
    names, values = entry[1][::2], entry[1][1::2]
    if names.count(b"response_id") != 1:
        return None
    value = values[names.index(b"response_id")]
    if not 0 < len(value) <= limits.ID or not value.isascii():
        return None
    response_id = value.decode()
    return StreamKey("response", response_id) if response_id.isprintable() else None


def slices(entries: Sequence[RawEntry], max_bytes: int) -> Iterator[Sequence[RawEntry]]:
    """Yield the entries in order, in slices of at most `max_bytes` of names and values.

    An entry that is larger than that is a slice of its own. No entries give no slices.
    """
    first, size = 0, 0
    for index, more in enumerate(map(size_of, entries)):
        if index > first and size + more > max_bytes:
            yield entries[first:index]
            first, size = index, 0
        size += more
    if entries:
        yield entries[first:]
