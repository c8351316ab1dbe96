"""What a batch adds: to each part, to each response, and in all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from handlers.core.assembly import StoredFragment, assemble
from handlers.core.context import note
from handlers.core.effects import Context
from handlers.core.identity import Arrival, EntryId
from handlers.core.log import Columns
from handlers.core.text import repair, sha256_digest, text_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltaloom.messages import DeadLetter, ModerationAlert
    from handlers.core.assembly import StoredClosing
    from handlers.core.context import Registers
    from handlers.core.effects import Ending, Note, Rank
    from handlers.core.identity import PartKey, StreamKey


_NOTHING_SAID = Context()


class PartChange:
    """What a batch adds to one part: fragments in columns, and closings."""

    __slots__ = (
        "_first",
        "_named",
        "closings",
        "contradicted",
        "copies",
        "deltas",
        "entries",
        "ids_differ",
        "in_order",
        "item_id",
        "numbers",
        "opened",
        "positions",
    )

    def __init__(self) -> None:
        self.entries: list[int] = []
        """The batch's entry index of each fragment."""
        self.numbers: list[int | None] = []
        self.deltas: list[str] = []
        self.positions: list[int] | None = None
        """In their entries' arrays; None as long as all are 0."""
        self.in_order = True
        self.closings: list[StoredClosing] = []
        self._first: dict[str, tuple[Arrival, Rank]] = {}
        """The first closing that has each text; under the empty text, the first one that has any."""
        self.copies: list[Arrival] = []
        """Of closings that are not stored, since one that is goes before them."""
        self.item_id: str | None = None
        """Of the earliest event that has one."""
        self._named: tuple[int, int] | None = None
        self.ids_differ = False
        """Whether others have another one."""
        self.opened: ModerationAlert | None = None
        self.contradicted: ModerationAlert | None = None
        """The alert that a closing here has another text than the finished part; None if there is none."""

    @property
    def named_by(self) -> int:
        """The batch's index of the entry that has the item id; 0 if none has."""
        return 0 if self._named is None else self._named[0]

    def name(self, item_id: str | None, entry: int, position: int) -> None:
        """Note an event's item id."""
        if item_id is None:
            return
        if self._named is not None and item_id != self.item_id:
            self.ids_differ = True
        if self._named is None or (entry, position) < self._named:
            self.item_id, self._named = item_id, (entry, position)

    def add(
        self,
        entries: list[int],
        positions: list[int] | None,
        numbers: list[int | None],
        deltas: list[str],
    ) -> None:
        """Add fragments that stand in the order in which they came; the part may keep the lists as they are.

        What is added later may have come earlier: `put_in_order` when all is added.
        """
        if not self.entries:
            self.entries, self.positions, self.numbers, self.deltas = entries, positions, numbers, deltas
            return
        if self.in_order:  # these lists are still others' too
            self.entries, self.numbers, self.deltas = [*self.entries], [*self.numbers], [*self.deltas]
            self.positions = None if self.positions is None else [*self.positions]
        self.in_order = False
        if positions is not None or self.positions is not None:
            if self.positions is None:
                self.positions = [0] * len(self.entries)
            self.positions += positions or [0] * len(entries)
        self.entries += entries
        self.numbers += numbers
        self.deltas += deltas

    def put_in_order(self) -> None:
        """Put the fragments into the order in which they came."""
        if self.in_order:
            return
        at = list(zip(self.entries, self.positions or [0] * len(self.entries), strict=True))
        order = sorted(range(len(at)), key=at.__getitem__)
        self.entries = [self.entries[n] for n in order]
        self.numbers = [self.numbers[n] for n in order]
        self.deltas = [self.deltas[n] for n in order]
        if self.positions is not None:
            self.positions = [self.positions[n] for n in order]
        self.in_order = True

    def close(self, closing: StoredClosing, *, has_checksum: bool = False) -> None:
        """Add a closing, unless one before it has the same text: only one copy of a text is stored.

        The first event that has the text closes a part, and of one event the closing of the lowest rank.
        A closing with another text is stored too, since it contradicts the first.
        """
        at = closing.arrival, closing.rank
        first = self._first.get(closing.text)
        if first is not None and first <= at and not has_checksum:
            self.copies.append(closing.arrival)
            return
        self.closings.append(closing)
        for text in {closing.text, ""} if closing.text else ():
            self._first[text] = min(at, self._first.get(text, at))

    def clear(self) -> None:
        """Take its fragments out."""
        self.entries, self.numbers, self.deltas, self.positions = [], [], [], None


class ResponseChange:
    """What a batch adds to one response."""

    __slots__ = ("endings", "entries", "lost", "notes", "parts", "said")

    def __init__(self) -> None:
        self.parts: dict[PartKey, PartChange] = {}
        self.endings: dict[Arrival, Ending] = {}
        self.notes: dict[Arrival, Note] = {}
        """The notes of closings, and of the first loss."""
        self.lost = False
        """True if a loss is among the notes: later ones change nothing."""
        self.said: dict[Said, EntryId] = {}
        """What its entries say of its context, and the earliest one that says so."""
        self.entries: set[int] = set()
        """The batch's entry indexes of all but the fragments."""

    def say(self, context: Context, entry: EntryId, *, learned: bool = False) -> None:
        """Add what an entry says, if it says anything."""
        if context == _NOTHING_SAID:
            return
        before = self.said.setdefault((context, learned), entry)
        if entry < before:
            self.said[context, learned] = entry

    @property
    def registers(self) -> Registers:
        """What its entries say of its context."""
        registers: Registers = {}
        for (context, learned), entry in self.said.items():
            note(registers, context, entry, learned=learned)
        return registers


Said = tuple[Context, bool]
"""A context, and whether it was learned from an event and not told by the producer."""


@dataclass(slots=True)
class Commit:
    """A batch: what it adds, and the entries to acknowledge with it, in the order of their ids."""

    entries: list[bytes]
    """Their ids, as the server gave them."""
    milliseconds: list[int]
    """Of these ids; `counters` likewise."""
    counters: list[int]
    responses: dict[StreamKey, ResponseChange] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)
    """For each name in the counts, like `type:keepalive`, the batch's entry indexes, one an event."""
    touched: dict[StreamKey, int] = field(default_factory=dict)
    """Responses that such events came of, with the latest entry's milliseconds."""
    dead_letters: list[tuple[int, DeadLetter]] = field(default_factory=list)
    """With the batch's entry index of each."""
    crowded: dict[StreamKey, tuple[int, DeadLetter]] = field(default_factory=dict)
    """The dead letter about a response that has too many parts, likewise; it gets only one."""

    acknowledges: bool = True
    """False of a piece of a batch that only stores what some responses get; the last piece has the rest."""

    def pieces(self, number: int) -> Iterator[Commit]:
        """Yield commits of so many responses each that there are about so many; the last acknowledges."""
        keys = list(self.responses)
        size = max(1, -(-len(keys) // number))
        firsts = list(range(0, len(keys), size)) or [0]
        for first in firsts:
            responses = {key: self.responses[key] for key in keys[first : first + size]}
            if first == firsts[-1]:
                yield replace(self, responses=responses)
            else:
                yield Commit(self.entries, self.milliseconds, self.counters, responses, acknowledges=False)

    def entry(self, index: int) -> EntryId:
        """The id of an entry."""
        return EntryId(self.milliseconds[index], self.counters[index])

    def indexes(self) -> dict[EntryId, int]:
        """Where each entry stands."""
        return {self.entry(index): index for index in range(len(self.entries))}

    def columns(self, change: PartChange) -> Columns:
        """A part's fragments, as a chunk stores them."""
        milliseconds, counters = self.milliseconds, self.counters
        return Columns(
            [milliseconds[entry] for entry in change.entries],
            [counters[entry] for entry in change.entries],
            change.numbers,
            change.deltas,
            change.positions,
        )

    def fragments(self, change: PartChange) -> list[StoredFragment]:
        """A part's fragments, one by one."""
        positions = change.positions or [0] * len(change.entries)
        return [
            StoredFragment(Arrival(self.entry(entry), position), number, delta)
            for entry, position, number, delta in zip(
                change.entries, positions, change.numbers, change.deltas, strict=True
            )
        ]

    def text_of(self, change: PartChange) -> str:
        """A part's fragments, joined."""
        if self.columns(change).first_number is not None:  # they are in order, and none is there twice
            return "".join(change.deltas)
        return assemble(self.fragments(change)).text

    def begins_with_delta(self, change: PartChange) -> bool:
        """Return whether a part gets fragments, and none of its closings with a text came before them."""
        if not change.entries:
            return False
        first = Arrival(self.entry(change.entries[0]), change.positions[0] if change.positions else 0)
        return all(first < closing.arrival for closing in change.closings if closing.text)

    def named(self, change: PartChange) -> EntryId:
        """The entry that has a part's item id; there has to be one."""
        return self.entry(change.named_by)

    def says(self, response: ResponseChange, change: PartChange) -> list[tuple[str, StoredClosing]]:
        """Return the closings that have a part's text or a checksum, each after the digest of that text."""
        found = []
        for closing in change.closings:
            if closing.text:
                found.append((text_digest(repair(closing.text)), closing))
            elif (note := response.notes.get(closing.arrival)) and note.checksum:
                found.append((sha256_digest(note.checksum.sha256), closing))
        return found

    def began(self, change: PartChange) -> EntryId:
        """The earliest entry of what is added to a part."""
        if not change.closings:
            return self.entry(change.entries[0])
        entries = [closing.arrival.entry for closing in change.closings]
        if change.entries:
            entries.append(self.entry(change.entries[0]))
        return min(entries)
