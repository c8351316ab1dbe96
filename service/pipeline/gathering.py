"""Gather a batch's events by where they belong: the first half of the short way, event by event.

Nearly every event is one more delta of a text that has several in the batch. So the loop here does as little
for an event as there is to do (decode it, and put its number to those of its like), and all that can be said
of several at once is said later, once for all that have the same `Where`. What a handler has to see is only
put aside.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from service.pipeline.frames import Frame, NotFrameError, decode_array, decode_one

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from msgspec import UnsetType

    from service.ports import RawEntry

    Where = tuple[bytes, int, str, int | UnsetType, int | UnsetType, int | UnsetType]
    """What events that are gathered together have in common: all that stands beside the events of their
    entries, joined, and how many names and values an entry has (beside this many, no two joins are the same
    if neither has a zero byte of its own: see `Reading`); their type, output index, content index and
    summary index."""

EVENT = b"event"
_ARRAY = ord("[")
_SEPARATOR = b"\0"

_place = attrgetter("type", "output_index", "content_index", "summary_index")


class Gathered:
    """The events of a batch, numbered from 0 in the order in which they came."""

    __slots__ = ("asked", "by_where", "entries", "frames", "others", "starts")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        """Every event, as far as it was read."""
        self.entries: list[int] | None = None
        """The batch's entry index of each; None as long as that is its number."""
        self.starts: dict[int, int] = {}
        """Of entries with an array, by their index: the number of its first event."""
        self.by_where: dict[Where, list[int]] = {}
        """The numbers of events."""
        self.asked: list[int] = []
        """The numbers of events that have to be handled one by one."""
        self.others: list[int] = []
        """Entries that have to be read in another way, by their index."""

    def leave(self, index: int) -> None:
        """Leave an entry to another way of reading."""
        self.others.append(index)
        self.frames.append(_NO_EVENT)
        if self.entries is not None:
            self.entries.append(index)

    def add_array(
        self, index: int, fields: list[bytes], events: list[Frame], asked: Collection[str], at_most: int
    ) -> None:
        """Add the events of an entry's array; one that is too long is left to another way."""
        if len(events) > at_most:
            self.leave(index)
            return
        number = len(self.frames)
        if self.entries is None:
            self.entries = list(range(number))
        self.starts[index] = number
        self.entries += [index] * len(events)
        self.frames += events
        joined, length = _SEPARATOR.join(fields[2:]), len(fields)
        for place, run in groupby(events, _place):
            end = number + sum(1 for _ in run)
            where = (joined, length, *place)
            alike = self.asked if place[0] in asked else self.by_where.setdefault(where, [])
            alike += range(number, end)
            number = end

    def entries_of(self, numbers: list[int]) -> list[int]:
        """The entries that some events came in."""
        entries = self.entries
        return numbers if entries is None else [entries[number] for number in numbers]

    def positions_of(self, numbers: list[int]) -> list[int] | None:
        """Where in their entries' arrays they stand; None where no entry of the batch has one."""
        entries, starts = self.entries, self.starts
        if entries is None:
            return None
        return [number - starts.get(entries[number], number) for number in numbers]

    def asked_by_entry(self) -> Iterator[tuple[int, Iterable[tuple[int, str]]]]:
        """Entries with events that have to be handled: the positions and types of these."""
        for index, numbers in groupby(sorted(self.asked), key=self._entry_of):
            start = self.starts.get(index)
            yield (
                index,
                [(0 if start is None else number - start, self.frames[number].type) for number in numbers],
            )

    def _entry_of(self, number: int) -> int:
        return number if self.entries is None else self.entries[number]


_NO_EVENT = Frame("")
"""Stands for an entry that is left to another way."""


def beside(entry: RawEntry) -> tuple[bytes, int]:
    """What stands beside the events of an entry, and how many names and values it has: see `Where`."""
    _, fields = entry
    return _SEPARATOR.join(fields[2:]), len(fields)


def is_array(body: bytes) -> bool:
    """Whether the JSON of an entry that was gathered is an array."""
    return body[0] == _ARRAY


def gather(
    entries: Sequence[RawEntry], asked: Collection[str], *, max_event_bytes: int, max_array_length: int
) -> Gathered:
    """Decode the events of entries that have a field `event`.

    Whether anything of it can be taken, the caller finds out. Events of the types in `asked` are put aside.
    """
    result = Gathered()
    frames, by_where, known, join = result.frames, result.by_where, result.by_where.get, _SEPARATOR.join
    for index, (_, fields) in enumerate(entries):
        body = fields[1]
        if fields[0] != EVENT or not 0 < len(body) <= max_event_bytes:
            result.leave(index)
            continue
        try:
            if not body.isascii():
                body.decode()  # the decoder does not look into the fields that it passes over
            if body[0] == _ARRAY:
                result.add_array(index, fields, decode_array(body), asked, max_array_length)
                continue
            frame = decode_one(body)
        except NotFrameError:
            result.leave(index)
            continue
        event_type = frame.type
        if event_type in asked:
            result.asked.append(len(frames))
        else:
            where = (
                join(fields[2:]),
                len(fields),
                event_type,
                frame.output_index,
                frame.content_index,
                frame.summary_index,
            )
            same = known(where)
            if same is None:
                by_where[where] = [len(frames)]
            else:
                same.append(len(frames))
        frames.append(frame)
        if result.entries is not None:
            result.entries.append(index)
    return result
