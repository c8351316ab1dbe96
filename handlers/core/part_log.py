"""The log of a part: the fragments and closings of all batches, read as one set.

Storage keeps a log as a sequence of chunks, of which each batch appends one. It decodes them, and may join
small ones. A chunk that was appended twice, or in another order, does not change the text.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

from handlers.core.assembly import Assembly, assemble, lengths_of
from handlers.core.identity import Arrival, EntryId
from handlers.core.text import repair

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.core.assembly import StoredClosing, StoredFragment


class Chunk(Protocol):
    """The events, at least one, that one batch added to a part; or those of several batches, joined."""

    item_id: str | None
    """Item id of the earliest event that has one.

    None if no event has one, or if the worker had already stored the item ids of the part with another chunk.
    """
    ids_differ: bool
    """True if the events have several item ids; False without `item_id`."""
    numbers: int | list[int | None]
    """Sequence number of each fragment, None for one without; or only the first number, if each is one more
    than the previous one."""

    @property
    def first(self) -> Arrival:
        """Arrival of the earliest event."""
        ...

    @property
    def item_id_entry(self) -> tuple[int, int]:
        """Id of the entry that gave the item id: milliseconds and counter. Meaningless without an item id."""
        ...

    @property
    def first_fragment(self) -> Arrival | None:
        """Arrival of the earliest fragment; None without fragments."""
        ...

    @property
    def last_fragment(self) -> Arrival | None:
        """Arrival of the latest fragment; None without fragments."""
        ...

    @property
    def first_text(self) -> Arrival | None:
        """Arrival of the earliest fragment with a non-empty delta; None if there is none."""
        ...

    @property
    def delta_strings(self) -> list[str]:
        """Deltas of the fragments, in the order of their arrivals."""
        ...

    def fragments(self) -> Iterable[StoredFragment]:
        """Return an iterator over the fragments, in the order of their arrivals."""
        ...


class PartLog:
    """The fragments and closings of a part, from chunks in any order; repeats do not change its text."""

    __slots__ = (
        "_chunks",
        "_first_text",
        "_firsts",
        "_item_id_entry",
        "_last",
        "_lengths",
        "began",
        "closings",
        "ids_differ",
        "item_id",
    )

    def __init__(self, chunks: Sequence[Chunk], closings: Sequence[StoredClosing]) -> None:
        """Build the log of some chunks, given in any order. `closings` has the closings of all chunks."""
        # Batches may be stored in another order than they were read. In the order of their first events the
        # chunks normally need no further sorting.
        by_first = sorted([(chunk.first, chunk) for chunk in chunks], key=itemgetter(0))
        self._firsts = [first for first, _ in by_first]
        self._chunks = [chunk for _, chunk in by_first]
        last = [chunk.last_fragment for chunk in chunks]
        self._last = max([arrival for arrival in last if arrival is not None], default=None)
        self.began = self._firsts[0] if by_first else Arrival(EntryId(0, 0), 0)
        """Arrival of the part's earliest event; that of entry `0-0` without chunks."""
        self._first_text: Arrival | None = None
        self._lengths: tuple[list[Arrival], list[int]] | None = None
        self.closings = closings
        item_ids = [(chunk.item_id_entry, chunk.item_id) for chunk in chunks if chunk.item_id is not None]
        first = min(item_ids, default=None)
        self._item_id_entry = None if first is None else first[0]
        self.item_id: str | None = None if first is None else first[1]
        """Item id of the earliest event that has one; None if none has."""
        self.ids_differ = (
            True in [chunk.ids_differ for chunk in chunks] or len({name for _, name in item_ids}) > 1
        )
        """True if the events have several item ids: some servers give each event a new one."""

    @property
    def fragments(self) -> list[StoredFragment]:
        """Fragments of all chunks, unsorted, repeats included."""
        return [fragment for chunk in self._chunks for fragment in chunk.fragments()]

    @property
    def arrivals(self) -> set[Arrival]:
        """Arrivals of all fragments and closings."""
        fragments = {fragment.arrival for fragment in self.fragments}
        return fragments.union(closing.arrival for closing in self.closings)

    @property
    def first_text(self) -> Arrival | None:
        """Arrival of the earliest fragment with a non-empty delta; None if there is none."""
        if self._first_text is None:
            for first, chunk in zip(self._firsts, self._chunks, strict=True):
                if self._first_text is not None and self._first_text <= first:
                    break
                text = chunk.first_text
                if text is not None and (self._first_text is None or text < self._first_text):
                    self._first_text = text
        return self._first_text

    def has_fragment(self, until: Arrival) -> bool:
        """Return whether a fragment, even with an empty delta, came at or before `until`."""
        for chunk in self._chunks:
            first = chunk.first_fragment
            if first is not None and first <= until:
                return True
        return False

    def length(self, until: Arrival) -> int:
        """Return the length, in UTF-16 units, of the text that `assembled` returns for `until`."""
        if self._lengths is None:
            self._lengths = lengths_of(self.fragments)
        arrivals, lengths = self._lengths
        count = bisect_right(arrivals, until)
        return lengths[count - 1] if count else 0

    def item_id_until(self, entry: EntryId) -> str | None:
        """Return `item_id` if `entry` or an earlier entry gave it, else None."""
        return self.item_id if self._item_id_entry is not None and self._item_id_entry <= entry else None

    def assembled(self, until: Arrival | None = None) -> tuple[Assembly, int]:
        """Join the fragments that came at or before `until`; None means all.

        Returns:
            The joined text, and the number of distinct arrivals of fragments after `until`.
        """
        if until is None or self._all_until(until):
            assembly = self._joined()
            return (assemble(self.fragments) if assembly is None else assembly), 0
        distinct = {fragment.arrival: fragment for fragment in self.fragments}.values()
        in_time = [fragment for fragment in distinct if fragment.arrival <= until]
        return assemble(in_time), len(distinct) - len(in_time)

    def _all_until(self, arrival: Arrival) -> bool:
        return self._last is None or self._last <= arrival

    def _joined(self) -> Assembly | None:
        """Join the fragments of all chunks as they are, without sorting or looking for repeats.

        Return None unless sequence numbers are consecutive in each chunk and increase from chunk to chunk:
        only then are the fragments surely in order, and none repeated. Without fragments, the text is empty.
        """
        texts: list[str] = []
        first = last = None
        for chunk in self._chunks:
            numbers, deltas = chunk.numbers, chunk.delta_strings
            if not deltas:
                continue
            if not isinstance(numbers, int) or (last is not None and numbers <= last):
                return None
            first = numbers if first is None else first
            last = numbers + len(deltas) - 1
            texts += deltas
        return Assembly(repair("".join(texts)), len(texts), 0, first, last)
