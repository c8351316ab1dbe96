"""Entries that are being read: each is opened once, and let go of when the next one is."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from handlers.core.identity import EntryId
from service.field_json import beginning_of
from service.pipeline.decode import Unreadable, UnreadableError, events_of, said_of
from service.ports.storage import Beginning, Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.pipeline.decode import Said, Slots
    from service.pipeline.gathering import Gathered
    from service.pipeline.sources import Reading


class Opened:
    """An entry with what was found in it. What cannot be read raises `UnreadableError` each time."""

    def __init__(self, entry: Entry, reading: Reading, why: Unreadable | None = None) -> None:
        """Hold an entry; `why` says that it was not opened."""
        self.entry = entry
        self._reading = reading
        self._why = why

    @cached_property
    def said(self) -> Said:
        """The producer's words beside the events."""
        self._check()
        return said_of(self.entry)

    @cached_property
    def slots(self) -> Slots:
        """The events, in order."""
        self._check()
        try:
            return events_of(self.entry, self._reading.max_event_bytes, self._reading.max_array_length)
        except UnreadableError as error:
            self._why = error.why
            raise

    def _check(self) -> None:
        if self._why is not None:
            raise UnreadableError(*self._why)


class Opener:
    """Opens the entries of a batch, and keeps the latest one."""

    def __init__(self, gathered: Gathered, reading: Reading, deliveries: Mapping[bytes, int]) -> None:
        self._gathered = gathered
        self._reading = reading
        self._deliveries = deliveries
        self._latest: tuple[int, Opened] | None = None

    def __getitem__(self, index: int) -> Opened:
        """Return the entry that has this index in the batch."""
        if self._latest is None or self._latest[0] != index:
            self._latest = None  # two large ones are not held at once
            self._latest = index, self._open(index)
        return self._latest[1]

    def _open(self, index: int) -> Opened:
        raw = self._gathered.raw(index)
        entry_id, fields = raw
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        deliveries, whole_bytes = self._deliveries.get(entry_id, 1), 0
        size = raw.whole_bytes if isinstance(raw, Beginning) else sum(map(len, fields))
        at_most = self._reading.max_entry_bytes
        if size > at_most:
            why = Unreadable("oversized", f"the entry has {size} bytes; at most {at_most}")
            named, whole_bytes = beginning_of(named, at_most), size
        else:
            try:
                return Opened(self._reading.open_entry(entry_id, named, deliveries), self._reading)
            except UnreadableError as error:
                why = error.why
        unopened = Entry(EntryId.parse(entry_id.decode()), named, None, {}, deliveries, whole_bytes)
        return Opened(unopened, self._reading, why)
