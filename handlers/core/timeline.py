"""Index the stored state of a response in the order of its stream, for the closing rules.

The closing rules ask the same questions about every part and every copy. The indexes are built once, so that
a settlement costs the sum of parts, copies and endings, not their product.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from deltaloom.messages import Kind
    from handlers.core.effects import Copy, Ending, ModelChange, Note
    from handlers.core.identity import Arrival, PartKey
    from handlers.core.part_log import PartLog
    from handlers.core.state import LowWater, ResponseState

    Place = tuple[int, int, Kind]
    """Output index, content index, and kind."""


class CopyIndex:
    """An index of the copies in one ending, by item id, by place and by kind."""

    def __init__(self, copies: Iterable[Copy]) -> None:
        self._positions: dict[str, int | None] = {}
        self._places: dict[Place, Copy] = {}
        self._sole: dict[Kind, Copy | None] = {}
        for copy in copies:
            self._places.setdefault(place_of(copy), copy)
            if copy.item_id is not None:
                known = self._positions.setdefault(copy.item_id, copy.output_position)
                self._positions[copy.item_id] = (
                    copy.output_position if known == copy.output_position else None
                )
            if copy.text:
                self._sole[copy.kind] = None if copy.kind in self._sole else copy

    def of(self, part: PartKey, item_id: str | None) -> Copy | None:
        """Return the copy with the item, the content index and the kind of a part; None if there is none.

        `item_id` is the id of the part's item, if known. The item is found by this id if the copies have the
        id at exactly one position, else by the part's `output_index`. (Some servers count `output_index` from
        1, change ids in the copy, or use one twice.) The text of the copy may be empty. The first of several
        copies at one place is returned.
        """
        position = None if item_id is None else self._positions.get(item_id)
        position = part.output_index if position is None else position
        return self._places.get((position, part.content_index, part.kind))

    def sole(self, kind: Kind) -> Copy | None:
        """Return the only copy of a kind that has a non-empty text; None if none or several have one."""
        return self._sole.get(kind)


class Timeline:
    """Indexes of the endings, copies, parts and notes in the stored state of one response.

    `response_ends` has the stored endings of the response, without those of items, in the order of the
    stream. The indexes do not follow later changes of the state.
    """

    def __init__(self, state: ResponseState, low_water: LowWater) -> None:
        """Build the indexes. `low_water` is the mark of this response, as `LowWater.of` returns it.

        The mark limits `sole_copies` only, which leaves out final copies that the mark has not passed: an
        earlier entry that is still pending may have another text of the same kind.
        """
        self.state = state
        ordered = sorted(state.endings.items(), key=itemgetter(0))
        self.response_ends = [(at, ending) for at, ending in ordered if ending.output_index is None]
        self._response_end_arrivals = [at for at, _ in self.response_ends]
        self._item_ends: dict[int, list[Arrival]] = {}
        for at, ending in ordered:
            if ending.output_index is not None:
                self._item_ends.setdefault(ending.output_index, []).append(at)
        self._copies = {at: CopyIndex(ending.copies) for at, ending in self.response_ends}
        self._sole: dict[Place, list[tuple[Arrival, Copy]]] = {}
        for at, ending in self.response_ends:
            if low_water.passed(at.entry):
                self._add_sole_copies(at, ending)
        self._finished_kinds: dict[Kind, int] = {}
        for part in state.finished_parts:
            self._finished_kinds[part.kind] = self._finished_kinds.get(part.kind, 0) + 1
        self._began: dict[Kind, list[Arrival]] = {}
        for part, log in state.open_parts.items():
            self._began.setdefault(part.kind, []).append(log.began)
        for arrivals in self._began.values():
            arrivals.sort()
        self._announced: list[tuple[Arrival, Copy]] = []
        self._lost_since: Arrival | None = None
        self._fallback: tuple[Arrival, ModelChange] | None = None
        if state.notes:  # few responses have any
            self._add_notes(state.notes)

    def _add_sole_copies(self, at: Arrival, ending: Ending) -> None:
        for kind in {copy.kind for copy in ending.copies}:
            copy = self._copies[at].sole(kind)
            if copy is not None:
                self._sole.setdefault(place_of(copy), []).append((at, copy))

    def _add_notes(self, notes: Mapping[Arrival, Note]) -> None:
        self._announced = [
            (at, copy)
            for at, note in sorted(notes.items(), key=itemgetter(0))
            for copy in note.announced
            if copy.text
        ]
        self._lost_since = min((at for at, note in notes.items() if note.loss), default=None)
        fallbacks = ((at, note.fallback) for at, note in notes.items() if note.fallback is not None)
        self._fallback = min(fallbacks, default=None, key=itemgetter(0))

    def response_end_from(self, arrival: Arrival) -> tuple[Arrival, Ending] | None:
        """Return the first ending of the response at or after `arrival`; None if there is none."""
        index = bisect_left(self._response_end_arrivals, arrival)
        return self.response_ends[index] if index < len(self.response_ends) else None

    def item_end_from(self, output_index: int, arrival: Arrival) -> Arrival | None:
        """Return the arrival of an item's first ending at or after `arrival`; None if there is none."""
        arrivals = self._item_ends.get(output_index, [])
        index = bisect_left(arrivals, arrival)
        return arrivals[index] if index < len(arrivals) else None

    def copies(self, response_end: Arrival) -> CopyIndex:
        """Return the copies in the ending of the response that arrived at `response_end`.

        Raises:
            KeyError: no ending of the response arrived there.
        """
        return self._copies[response_end]

    def sole_copies(self, part: PartKey) -> list[tuple[Arrival, Copy]]:
        """Return the copies at a part's place from the response's final copies, in the order of the stream.

        Each is returned with the arrival of its final copy. A final copy counts only if this is its only
        non-empty text of the part's kind, and if the low-water mark has passed the final copy.
        """
        return self._sole.get((part.output_index, part.content_index, part.kind), [])

    def has_part(self, kind: Kind, until: Arrival) -> bool:
        """Return whether a part of a kind is finished, or is open and began at or before `until`.

        A finished part counts even if it began after `until`.
        """
        arrivals = self._began.get(kind)
        return kind in self._finished_kinds or (arrivals is not None and arrivals[0] <= until)

    def is_only_part(self, part: PartKey, until: Arrival) -> bool:
        """Return whether a part is the only one of its kind at the event `until`.

        No other part of the kind may be finished, or be open and have begun at or before `until`. A finished
        part counts even if it began later. The part itself need not be stored.
        """
        log = self.state.open_parts.get(part)
        itself = part in self.state.finished_parts or (log is not None and log.began <= until)
        began = bisect_right(self._began.get(part.kind, []), until)
        return self._finished_kinds.get(part.kind, 0) + began - itself <= 0

    @cached_property
    def _alike(self) -> dict[tuple[int | None, Kind], list[PartKey]]:
        """The finished and open parts by item and kind."""
        alike: dict[tuple[int | None, Kind], list[PartKey]] = {}
        for part in {**self.state.finished_parts, **self.state.open_parts}:
            alike.setdefault(_item_of(part), []).append(part)
        return alike

    def parts_like(self, part: PartKey) -> list[PartKey]:
        """Return the finished parts, then the open ones, that have the kind and the item of `part`.

        `part` itself is included if it is finished or open. Without a response id, all parts belong to one
        item.
        """
        return self._alike.get(_item_of(part), [])

    def announced(self, since: Arrival, until: Arrival) -> list[tuple[Arrival, Copy]]:
        """Return the non-empty texts announced from `since` (inclusive) to `until` (exclusive).

        Each is returned with the arrival of the event that announced it, in the order of the stream. Left out
        is a second text at the same place, and a text that equals one returned before it of the same kind.
        """
        first, end = (bisect_left(self._announced, at, key=itemgetter(0)) for at in (since, until))
        by_place: dict[Place, tuple[Arrival, Copy]] = {}
        for at, copy in self._announced[first:end]:
            by_place.setdefault(place_of(copy), (at, copy))
        by_text: dict[tuple[Kind, str], tuple[Arrival, Copy]] = {}
        for at, copy in by_place.values():
            by_text.setdefault((copy.kind, copy.text), (at, copy))
        return list(by_text.values())

    def has_loss(self, until: Arrival) -> bool:
        """Return whether the producer reported a loss at or before `until`."""
        return self._lost_since is not None and self._lost_since <= until

    def fallback(self, until: Arrival) -> ModelChange | None:
        """Return the first change of the model, if it was reported at or before `until`; else None."""
        return self._fallback[1] if self._fallback is not None and self._fallback[0] <= until else None

    def has_ended(self, before: Arrival) -> bool:
        """Return whether an ending of the response that is still stored came before `before` (exclusive).

        Endings of items do not count.
        """
        return bool(self.response_ends) and self.response_ends[0][0] < before

    def applied_endings(
        self, low_water: LowWater, still_open: Iterable[tuple[PartKey, PartLog]]
    ) -> list[Arrival]:
        """Return the arrivals of the endings that the low-water mark has passed, with nothing left to close.

        They are unsorted, and endings of items are among them. The ending of the response has something left
        to close if a part in `still_open` began at or before it. For the ending of an item, that part must
        have the item's output index.

        Args:
            low_water: the mark of this response, as `LowWater.of` returns it.
            still_open: the parts that stay open after the settlement.
        """
        first: Arrival | None = None
        first_of: dict[int, Arrival] = {}
        for part, log in still_open:
            first = log.began if first is None else min(first, log.began)
            first_of[part.output_index] = min(log.began, first_of.get(part.output_index, log.began))
        found = []
        for at, ending in self.state.endings.items():
            began = first if ending.output_index is None else first_of.get(ending.output_index)
            if low_water.passed(at.entry) and (began is None or at < began):
                found.append(at)
        return found


def is_like(part: PartKey, other: PartKey) -> bool:
    """Return whether two parts of a response have the same kind and output index.

    Without a response id, all parts belong to one item, and the output index does not count.
    """
    return _item_of(part) == _item_of(other)


def _item_of(part: PartKey) -> tuple[int | None, Kind]:
    """Return the item and the kind of a part.

    The item is an output index, or None without a response id: all parts then belong to one item.
    """
    return None if part.stream_key.by == "item" else part.output_index, part.kind


def place_of(copy: Copy) -> Place:
    """Return the place of a copy: its `output_position`, content index and kind."""
    return copy.output_position, copy.content_index, copy.kind
