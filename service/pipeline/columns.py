"""Events that are alike, in columns: most differ in nothing but their number and their delta."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msgspec import UnsetType

    from service.pipeline.frames import Frame

    Where = tuple[bytes, int, str, int | UnsetType, int | UnsetType, int | UnsetType]
    """What events that are gathered together have in common: all that stands beside the events of their
    entries, joined, and how many names and values that is; their type, output index, content index and
    summary index."""

_SEPARATOR = b"\0"

joined = _SEPARATOR.join
"""What stands beside the events of an entry, as in a `Where`."""


BESIDE_BYTES = 2048
"""Most bytes beside an event that are joined; they are held in memory for as long as a source is known."""


def can_be_key(together: bytes, beside: Sequence[bytes]) -> bool:
    """Return whether the joined bytes are short, and unambiguous: no value has a zero byte of its own."""
    return len(together) <= BESIDE_BYTES and together.count(_SEPARATOR) == max(0, len(beside) - 1)


class Column:
    """Events that have the same `Where`, in the order in which they came."""

    __slots__ = ("beside", "deltas", "entries", "item_id", "item_ids", "numbers", "positions")

    def __init__(self, beside: list[bytes], item_id: str | None) -> None:
        self.beside = beside
        """The names and values that stand beside each of them, in turn."""
        self.entries: list[int] = []
        """The batch's entry index of each."""
        self.numbers: list[int | None] = []
        """Their sequence numbers."""
        self.deltas: list[str | None] = []
        """None is where an event has none: of a type that is only counted."""
        self.positions: list[int] | None = None
        """In their entries' arrays, 0 for what is left out at the end; None as long as all are 0."""
        self.item_id = item_id
        """The latest one's."""
        self.item_ids = [(0, item_id)]
        """From which one on they have which item id."""

    def rename(self, item_id: str | None) -> None:
        """Note that what comes next has another item id."""
        self.item_id = item_id
        self.item_ids.append((len(self.entries), item_id))

    def add_run(self, entry: int, first: int, run: Sequence[Frame], deltas: Sequence[str | None]) -> None:
        """Add events that stand one behind the other in an entry's array, and their deltas."""
        if self.positions is None:
            self.positions = []
        if len(self.positions) < len(self.entries):
            self.positions += [0] * (len(self.entries) - len(self.positions))
        self.positions += range(first, first + len(run))
        self.entries += [entry] * len(run)
        self.numbers += [frame.sequence_number for frame in run]
        self.deltas += deltas

    @property
    def texts(self) -> list[str]:
        """The deltas, of a type that adds them."""
        return self.deltas  # type: ignore[return-value]  # those without were not added

    def all_positions(self) -> list[int] | None:
        """The position of each; None if all are 0."""
        if self.positions is None:
            return None
        return self.positions + [0] * (len(self.entries) - len(self.positions))
