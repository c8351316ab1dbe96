"""Columns of events with the same key: most events differ only in their sequence number and delta."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msgspec import UnsetType

    from service.pipeline.frames import Frame

    ColumnKey = tuple[bytes, int, str, int | UnsetType, int | UnsetType, int | UnsetType]
    """The values that all events of a column share: the metadata of their entries, joined; the number of
    names and values in that metadata; the event type, output index, content index and summary index."""

_SEPARATOR = b"\0"

join_metadata = _SEPARATOR.join
"""Join the names and values of an entry's metadata with NUL bytes: the first item of a `ColumnKey`."""

METADATA_BYTES = 2048
"""Maximum bytes of joined metadata on the fast path: `EventRouter` keeps it as a cache key."""


def can_be_key(together: bytes, metadata: Sequence[bytes]) -> bool:
    """Return whether joined metadata is short enough and unambiguous (no name or value has a NUL byte)."""
    separators = len(metadata) - 1 if metadata else 0
    return len(together) <= METADATA_BYTES and together.count(_SEPARATOR) == separators


class Column:
    """A column of events with the same `ColumnKey`, in the order of their arrivals."""

    __slots__ = ("deltas", "entries", "item_id", "item_id_changes", "metadata", "numbers", "positions")

    def __init__(self, metadata: list[bytes], item_id: str | None) -> None:
        self.metadata = metadata
        """Metadata that all entries of the column share: names and values alternate."""
        self.entries: list[int] = []
        """Entry index of each event in the batch."""
        self.numbers: list[int | None] = []
        """Sequence number of each event; None if it has none."""
        self.deltas: list[str | None] = []
        """Delta of each event; None if it has none. Only events that are merely counted may have none."""
        self.positions: list[int] | None = None
        """Position of each event in its entry's array; None if no event came from an array. Zeros at the end
        may be missing.
        """
        self.item_id = item_id
        """Item id of the latest event."""
        self.item_id_changes = [(0, item_id)]
        """Item ids by run of events: index in the column of the run's first event, and the id or None."""

    def change_item_id(self, item_id: str | None) -> None:
        """Begin a run of events with another item id: call it before the first of them is added."""
        self.item_id = item_id
        self.item_id_changes.append((len(self.entries), item_id))

    def add_run(self, entry: int, first: int, run: Sequence[Frame], deltas: Sequence[str | None]) -> None:
        """Add consecutive events of an entry's array, the first of them at position `first`.

        Their item id is not added: call `change_item_id` before if it is another one.

        Args:
            entry: index of the entry in the batch.
            first: position of the first event.
            run: the events.
            deltas: delta of each event, or None.
        """
        if self.positions is None:
            self.positions = []
        if len(self.positions) < len(self.entries):
            self.positions += [0] * (len(self.entries) - len(self.positions))
        self.positions += range(first, first + len(run))
        self.entries += [entry] * len(run)
        self.numbers += [frame.sequence_number for frame in run]
        self.deltas += deltas

    @property
    def delta_strings(self) -> list[str]:
        """Deltas of a column of delta events: none of them is None."""
        return self.deltas  # type: ignore[return-value]  # events without a delta were not added

    def all_positions(self) -> list[int] | None:
        """Return the position of each event in its entry's array; None if no event came from an array.

        The position of an event without an array is 0.
        """
        if self.positions is None:
            return None
        return self.positions + [0] * (len(self.entries) - len(self.positions))
