"""The effects of a batch: on each part, on each response, and in total."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from handlers.core.assembly import FragmentColumns, StoredFragment, assemble
from handlers.core.context import merge_context
from handlers.core.effects import ContextValues
from handlers.core.identity import Arrival, EntryId
from handlers.core.text import repair, sha256_digest, text_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from deltaloom.messages import DeadLetter, ModerationAlert
    from handlers.core.assembly import StoredClosing
    from handlers.core.context import Registers
    from handlers.core.effects import Ending, Note, Rank
    from handlers.core.identity import PartKey, StreamKey


_NO_CONTEXT = ContextValues()

_EMPTY: list[Any] = []
"""Initial value of a part's lists, never changed: most parts of a batch do not need lists of their own."""

_new = tuple.__new__


class PartChange:
    """The fragments (in columns) and closings that a batch adds to one part."""

    __slots__ = (
        "_first",
        "_item_id_at",
        "closings",
        "contradicted",
        "copies",
        "deltas",
        "entries",
        "ids_differ",
        "in_order",
        "item_id",
        "numbers",
        "opening_alert",
        "positions",
    )

    def __init__(self) -> None:
        self.entries: list[int] = _EMPTY
        """The index in the batch of each fragment's entry."""
        self.numbers: list[int | None] = _EMPTY
        self.deltas: list[str] = _EMPTY
        self.positions: list[int] | None = None
        """The position of each fragment in its entry's array of events; None while all are 0."""
        self.in_order = True
        self.closings: list[StoredClosing] = _EMPTY
        self._first: dict[str, tuple[Arrival, Rank]] | None = None
        """Arrival and rank of the first closing with each text; key "" has the first one with any text. None
        if there is no closing."""
        self.copies: list[Arrival] = _EMPTY
        """The arrivals of closings that are not stored, because an earlier one has the same text, or because
        they have no text and an earlier one has."""
        self.item_id: str | None = None
        """The item id of the earliest event with one."""
        self._item_id_at: tuple[int, int] | None = None
        """The entry's index and the position of the event that gave `item_id`."""
        self.ids_differ = False
        """True if events of the batch have different item ids for the part."""
        self.opening_alert: ModerationAlert | None = None
        """The opening alert for this commit to raise, or None."""
        self.contradicted: ModerationAlert | None = None
        """The alert about a closing whose text differs from the finished text of the part, or None."""

    @classmethod
    def of(
        cls,
        entries: list[int],
        positions: list[int] | None,
        numbers: list[int | None],
        deltas: list[str],
        item_id: str | None,
    ) -> Self:
        """Return the change that adds fragments with the same item id; the columns are as in `add`."""
        change = cls()
        change.entries, change.positions, change.numbers, change.deltas = entries, positions, numbers, deltas
        if item_id is not None:
            change.item_id, change._item_id_at = item_id, (entries[0], positions[0] if positions else 0)
        return change

    @property
    def item_id_entry(self) -> int:
        """The index in the batch of the earliest entry that gives the part an item id; 0 if none does."""
        return 0 if self._item_id_at is None else self._item_id_at[0]

    def record_item_id(self, item_id: str | None, entry: int, position: int) -> None:
        """Record the item id that an event gives the part; the earliest event's id counts.

        `entry` is the index of the event's entry in the batch. An item id of None changes nothing.
        """
        if item_id is None:
            return
        if self._item_id_at is not None and item_id != self.item_id:
            self.ids_differ = True
        if self._item_id_at is None or (entry, position) < self._item_id_at:
            self.item_id, self._item_id_at = item_id, (entry, position)

    def add(
        self,
        entries: list[int],
        positions: list[int] | None,
        numbers: list[int | None],
        deltas: list[str],
    ) -> None:
        """Add fragments, given as columns in the order of their arrivals. Do not change the lists afterwards.

        Later calls may add earlier fragments, so call `put_in_order` after the last one.
        """
        if not self.entries:
            self.entries, self.positions, self.numbers, self.deltas = entries, positions, numbers, deltas
            return
        # The lists of the first call may belong to a column, which a repeated commit reads again: copy them.
        if self.in_order:
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
        """Sort the fragments by arrival."""
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
        """Add a closing to `closings`, or only its arrival to `copies` if it has nothing new.

        A closing has nothing new if an earlier one has the same text, or if it has no text and an earlier one
        has. The first event with a text closes a part; among the closings of one event, the one with the
        lowest rank does. A closing with another text contradicts it, so it is added. A closing with a
        checksum is always added.
        """
        if self._first is None:
            self._first, self.closings, self.copies = {}, [], []
        at = closing.arrival, closing.rank
        first = self._first.get(closing.text)
        if first is not None and first <= at and not has_checksum:
            self.copies.append(closing.arrival)
            return
        self.closings.append(closing)
        if closing.text:
            for text in (closing.text, ""):
                self._first[text] = min(at, self._first.get(text, at))

    def clear(self) -> None:
        """Remove the fragments."""
        self.entries, self.numbers, self.deltas, self.positions = [], [], [], None


class ResponseChange:
    """The effects of a batch on one response."""

    __slots__ = ("context_claims", "effect_entries", "endings", "fallback_at", "lost", "notes", "parts")

    def __init__(self) -> None:
        self.parts: dict[PartKey, PartChange] = {}
        self.endings: dict[Arrival, Ending] = {}
        self.notes: dict[Arrival, Note] = {}
        """Notes by arrival: of closings, announced texts, the first loss, the first change of the model."""
        self.lost = False
        """True if a loss is among the notes; later losses change nothing."""
        self.fallback_at: Arrival | None = None
        """Arrival of the first change of the model, whose note is among the notes; None without one."""
        self.context_claims: dict[ContextClaim, EntryId] = {}
        """The context claims of the response's entries, each with its earliest entry."""
        self.effect_entries: set[int] = set()
        """The indexes in the batch of all entries with effects other than fragments."""

    def add_context(self, context: ContextValues, entry: EntryId, *, learned: bool = False) -> None:
        """Record that an entry gives a context that is not empty; of equal ones, the earliest entry counts.

        `learned` is True if an event gives the context, False if the producer does.
        """
        if context == _NO_CONTEXT:
            return
        before = self.context_claims.setdefault((context, learned), entry)
        if entry < before:
            self.context_claims[context, learned] = entry

    @property
    def registers(self) -> Registers:
        """The registers that result from the context claims."""
        registers: Registers = {}
        for (context, learned), entry in self.context_claims.items():
            merge_context(registers, context, entry, learned=learned)
        return registers


ContextClaim = tuple[ContextValues, bool]
"""A context, and True if it was learned from an event instead of the producer's own context."""


@dataclass(slots=True)
class Commit:
    """The effects of a batch, and the entries to acknowledge with them, in the order of their ids."""

    entries: list[bytes]
    """The ids of the entries, as the server sent them."""
    milliseconds: list[int]
    """The milliseconds of these ids; `seqs` has their second halves."""
    seqs: list[int]
    responses: dict[StreamKey, ResponseChange] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)
    """The entry indexes of counted events, one per event, by name of the count, like `type:keepalive`."""
    lost_events: dict[int, int] = field(default_factory=dict)
    """The number of events that producers report to have dropped, by entry index."""
    touched: dict[StreamKey, int] = field(default_factory=dict)
    """Responses with counted events, each with the milliseconds of its latest entry."""
    dead_letters: list[tuple[int, DeadLetter]] = field(default_factory=list)
    """Dead letters, each with the index of its entry."""
    crowded: dict[StreamKey, tuple[int, DeadLetter]] = field(default_factory=dict)
    """The only dead letter about a response with too many parts or notes, with the index of its entry."""
    read_ms: int = 0
    """The server's time, in ms since the epoch, shortly before the entries were read; 0 if they may have been
    read long ago, or by another worker."""
    may_be_owned: bool = True
    """True if storage may have recorded an owner of one of these entries. Small new entries have none."""
    acknowledges: bool = True
    """False for a piece that only stores the effects on some responses; the last piece has all else."""

    def pieces(self, number: int) -> Iterator[Commit]:
        """Yield `number` commits (fewer if there are fewer responses), each with some of the responses.

        The last one also has all other effects of the batch, and acknowledges the entries.
        """
        keys = list(self.responses)
        number = max(1, min(number, len(keys)))
        for first in range(number):
            # Neighbouring responses often cost the same, so each piece gets its share of the expensive ones.
            responses = {key: self.responses[key] for key in keys[first::number]}
            if first == number - 1:
                yield replace(self, responses=responses)
            else:
                yield Commit(
                    self.entries,
                    self.milliseconds,
                    self.seqs,
                    responses,
                    read_ms=self.read_ms,
                    may_be_owned=self.may_be_owned,
                    acknowledges=False,
                )

    def entry(self, index: int) -> EntryId:
        """Return the id of the entry at an index."""
        return _new(EntryId, (self.milliseconds[index], self.seqs[index]))

    def indexes(self) -> dict[EntryId, int]:
        """Return the index of each entry, by id."""
        return {self.entry(index): index for index in range(len(self.entries))}

    def columns(self, change: PartChange) -> FragmentColumns:
        """Return a part's fragments in columns."""
        milliseconds, seqs = self.milliseconds, self.seqs
        return FragmentColumns(
            [milliseconds[entry] for entry in change.entries],
            [seqs[entry] for entry in change.entries],
            change.numbers,
            change.deltas,
            change.positions,
        )

    def fragments(self, change: PartChange) -> list[StoredFragment]:
        """Return a part's fragments as a list of objects."""
        positions = change.positions or [0] * len(change.entries)
        return [
            StoredFragment(Arrival(self.entry(entry), position), number, delta)
            for entry, position, number, delta in zip(
                change.entries, positions, change.numbers, change.deltas, strict=True
            )
        ]

    def text_of(self, change: PartChange) -> str:
        """Return the text of a part's fragments."""
        if self.columns(change).first_number is not None:  # consecutive numbers: in order and without repeats
            return "".join(change.deltas)
        return assemble(self.fragments(change)).text

    def begins_with_delta(self, change: PartChange) -> bool:
        """Return whether a part has fragments, and none of its closings with a text came before them."""
        if not change.entries:
            return False
        first = Arrival(self.entry(change.entries[0]), change.positions[0] if change.positions else 0)
        return all(first < closing.arrival for closing in change.closings if closing.text)

    def item_id_entry(self, change: PartChange) -> EntryId:
        """Return the id of the entry that gave a part's item id; without one, of the first entry."""
        return self.entry(change.item_id_entry)

    def stated_texts(self, response: ResponseChange, change: PartChange) -> list[tuple[str, StoredClosing]]:
        """Return the closings with a text or a checksum of the part, as (digest of the text, closing)."""
        found = []
        for closing in change.closings:
            if closing.text:
                found.append((text_digest(repair(closing.text)), closing))
            elif (note := response.notes.get(closing.arrival)) and note.checksum:
                found.append((sha256_digest(note.checksum.sha256), closing))
        return found

    def began(self, change: PartChange) -> EntryId:
        """Return the id of the earliest entry with a fragment or a closing of a part."""
        if not change.closings:
            return self.entry(change.entries[0])
        entries = [closing.arrival.entry for closing in change.closings]
        if change.entries:
            entries.append(self.entry(change.entries[0]))
        return min(entries)
