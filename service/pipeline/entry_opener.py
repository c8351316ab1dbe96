"""Open entries for the slow path. Only the latest one is held, so that two large ones never are."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from handlers.core.identity import EntryId
from service.field_json import beginning_of
from service.pipeline.decode import Unreadable, UnreadableError, events_of, producer_context_of
from service.ports.storage import Beginning, Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.pipeline.decode import ProducerContext, Slots
    from service.pipeline.decoded_batch import DecodedBatch
    from service.pipeline.event_router import EventRouter


class OpenedEntry:
    """An opened entry, decoded on first use. A property raises `UnreadableError` if it cannot be read.

    After an error of `slots`, `producer` raises the same error, unless it was read before.
    """

    def __init__(self, entry: Entry, router: EventRouter, why: Unreadable | None = None) -> None:
        """Hold an entry. If it could not be opened, `why` is the error that every property raises."""
        self.entry = entry
        self._router = router
        self._why = why

    @cached_property
    def producer(self) -> ProducerContext:
        """Producer context: the response id and the context fields of the entry."""
        self._check()
        return producer_context_of(self.entry)

    @cached_property
    def slots(self) -> Slots:
        """Events of the entry, in order."""
        self._check()
        try:
            return events_of(self.entry, self._router.max_event_bytes, self._router.max_array_length)
        except UnreadableError as error:
            self._why = error.why
            raise

    def _check(self) -> None:
        if self._why is not None:
            raise UnreadableError(*self._why)


class EntryOpener:
    """Opener of a batch's entries by index. It keeps only the latest one.

    Of an entry that is too large to decode, it keeps only the first `max_entry_bytes`, for a dead letter.
    """

    def __init__(self, decoded: DecodedBatch, router: EventRouter, deliveries: Mapping[bytes, int]) -> None:
        self._decoded = decoded
        self._router = router
        self._deliveries = deliveries
        self._latest: tuple[int, OpenedEntry] | None = None

    def __getitem__(self, index: int) -> OpenedEntry:
        """Return the entry that has this index in the batch; open it unless it was the last one opened.

        An entry that cannot be read raises no error here: the properties of the result raise
        `UnreadableError`.
        """
        if self._latest is None or self._latest[0] != index:
            self._latest = None  # released first: two large entries are never held at once
            self._latest = index, self._open(index)
        return self._latest[1]

    def _open(self, index: int) -> OpenedEntry:
        raw = self._decoded.raw(index)
        entry_id, fields = raw
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        deliveries, whole_bytes = self._deliveries.get(entry_id, 1), 0
        size = raw.whole_bytes if isinstance(raw, Beginning) else sum(map(len, fields))
        at_most = self._router.max_entry_bytes
        if size > at_most:
            why = Unreadable("oversized", f"the entry has {size} bytes; at most {at_most}")
            named, whole_bytes = beginning_of(named, at_most), size
        else:
            try:
                return OpenedEntry(self._router.open_entry(entry_id, named, deliveries), self._router)
            except UnreadableError as error:
                why = error.why
        unopened = Entry(EntryId.parse(entry_id.decode()), named, None, {}, deliveries, whole_bytes)
        return OpenedEntry(unopened, self._router, why)
