"""What the pipeline needs of the world, and the plain data that goes to and fro."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from handlers.core.assembly import StoredFragment, assemble
from handlers.core.context import note
from handlers.core.effects import Context
from handlers.core.identity import Arrival, EntryId
from handlers.core.log import Columns
from handlers.core.response import LowWater

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from deltaloom.messages import AssembledText, DeadLetter, ModerationAlert, RateScope
    from handlers.core.assembly import StoredClosing
    from handlers.core.context import Registers
    from handlers.core.effects import Ending
    from handlers.core.identity import PartKey, StreamKey
    from handlers.core.response import ResponseState


class StorageUnavailableError(ConnectionError):
    """The server is away, or cannot take writes now: nothing was acknowledged, so try again."""

    def __init__(self, state: str, detail: str = "") -> None:
        super().__init__(f"{state}: {detail}" if detail else state)
        self.state = state
        """What is the matter, in a word: the same for every attempt that fails for the same reason."""


class RawEntry(NamedTuple):
    """An entry as the server gives it (which may be a plain list of the two)."""

    id: bytes
    fields: list[bytes]
    """Names and values in turn."""


class Entry(NamedTuple):
    """An entry of the input stream.

    `body` is the JSON of an event or of an array of events, None where the entry holds one event as flat
    fields. `headers` is what its producer said of it in the message's envelope.
    """

    id: EntryId
    fields: Mapping[bytes, bytes]
    body: bytes | None
    headers: Mapping[str, str]
    deliveries: int = 1


class PartChange:
    """What a batch adds to one part: fragments in columns, and closings."""

    __slots__ = ("_named", "closings", "deltas", "entries", "item_id", "numbers", "opened", "positions")

    def __init__(self) -> None:
        self.entries: list[int] = []
        """The batch's entry index of each fragment."""
        self.numbers: list[int | None] = []
        self.deltas: list[str] = []
        self.positions: list[int] | None = None
        """In their entries' arrays; None as long as all are 0."""
        self.closings: list[StoredClosing] = []
        self.item_id: str | None = None
        """Of the earliest event that has one."""
        self._named: tuple[int, int] | None = None
        self.opened: ModerationAlert | None = None

    def name(self, item_id: str | None, entry: int, position: int) -> None:
        """Note an event's item id."""
        if item_id is not None and (self._named is None or (entry, position) < self._named):
            self.item_id, self._named = item_id, (entry, position)

    def add(
        self,
        entries: list[int],
        positions: list[int] | None,
        numbers: list[int | None],
        deltas: list[str],
    ) -> None:
        """Add fragments that stand in the order in which they came; the part may keep the lists."""
        if not self.entries:
            self.entries, self.positions, self.numbers, self.deltas = entries, positions, numbers, deltas
            return
        if positions is not None or self.positions is not None:
            before = self.positions or [0] * len(self.entries)
            self.positions = before + (positions or [0] * len(entries))
        in_order = self.entries[-1] < entries[0]
        self.entries, self.numbers, self.deltas = (
            self.entries + entries,
            self.numbers + numbers,
            self.deltas + deltas,
        )
        if not in_order:
            self._sort()

    def _sort(self) -> None:
        at = list(zip(self.entries, self.positions or [0] * len(self.entries), strict=True))
        order = sorted(range(len(at)), key=at.__getitem__)
        self.entries = [self.entries[n] for n in order]
        self.numbers = [self.numbers[n] for n in order]
        self.deltas = [self.deltas[n] for n in order]
        if self.positions is not None:
            self.positions = [self.positions[n] for n in order]

    def close(self, closing: StoredClosing) -> None:
        """Add a closing, unless one that goes before it says the text: of a text's copies one is stored.

        The first entry that has the text closes a part, and within an entry the closing of the lowest rank.
        """
        (entry, _), rank, _ = closing
        for (before, _), better, text in self.closings:
            if text and (before < entry or (before == entry and better <= rank)):
                return
        self.closings.append(closing)

    def clear(self) -> None:
        """Take its fragments out."""
        self.entries, self.numbers, self.deltas, self.positions = [], [], [], None


class ResponseChange:
    """What a batch adds to one response."""

    __slots__ = ("endings", "entries", "parts", "said")

    def __init__(self) -> None:
        self.parts: dict[PartKey, PartChange] = {}
        self.endings: dict[Arrival, Ending] = {}
        self.said: dict[Said, EntryId] = {}
        """What its entries say of its context, and the earliest one that says so."""
        self.entries: set[int] = set()
        """The batch's entry indexes of all but the fragments."""

    def say(self, context: Context, entry: EntryId, *, learned: bool = False) -> None:
        """Add what an entry says."""
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
    """For each event type without a handler, the batch's entry indexes it came in, one an event."""
    touched: dict[StreamKey, int] = field(default_factory=dict)
    """Responses that such events came of, with the latest entry's milliseconds."""
    dead_letters: list[tuple[int, DeadLetter]] = field(default_factory=list)
    """With the batch's entry index of each."""

    def entry(self, index: int) -> EntryId:
        """The id of an entry."""
        return EntryId(self.milliseconds[index], self.counters[index])

    def index(self, entry: EntryId) -> int:
        """Where an entry stands."""
        return next(n for n in range(len(self.entries)) if self.entry(n) == entry)

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

    def began(self, change: PartChange) -> EntryId:
        """The earliest entry of what is added to a part."""
        if not change.closings:
            return self.entry(change.entries[0])
        entries = [closing.arrival.entry for closing in change.closings]
        if change.entries:
            entries.append(self.entry(change.entries[0]))
        return min(entries)


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a commit."""

    overflowing: Sequence[PartKey] = ()
    """Parts that would grow beyond their limit. If there are any, nothing at all was written."""
    acknowledged: int = 0
    opened: Sequence[PartKey] = ()
    late_events: int = 0
    low_water: LowWater = LowWater()
    ready: Sequence[StreamKey] = ()
    """Responses with something closed behind the low-water mark; this batch's too, if that is stalled."""
    loaded: Sequence[Loaded] = ()
    """Those of them that the commit could read at once; `ready` has the others."""
    more: bool = False
    """Whether there may be more of them: a survey finds those."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A response as stored, and the version that a later write must still find."""

    state: ResponseState
    version: int
    log_bytes: Mapping[PartKey, int]
    """How long the logs of its open parts were."""


@dataclass(frozen=True, slots=True)
class FinishedText:
    """A text to write, with the alerts that go with it."""

    part: PartKey
    message: AssembledText
    opened: ModerationAlert | None
    finished: ModerationAlert | None
    log_bytes: int
    """How long its log was: if it has grown since, the text has to be read again."""
    late: int
    """Events of the log that came too late for it."""


@dataclass(frozen=True, slots=True)
class Over:
    """What follows from the end of a response, once, however often and by whomever it is said."""

    at_ms: int
    """When the first event that ended it was added to the input; server time if it was given up."""
    counted_for: Sequence[tuple[RateScope, str]]
    """Whose response it was: the model's, the tenant's. Nobody's if nobody can say which response it is."""
    alerts: Sequence[ModerationAlert]
    """Raised because of how it ended, each type once."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to write for one response."""

    stream_key: StreamKey
    version: int
    texts: Sequence[FinishedText]
    spent: Sequence[Arrival]
    """Endings that nothing waits for any more."""
    doubtful_since: EntryId | None
    ended: bool
    """Nothing more is expected: forget the response once nothing of it is open."""
    idle_since_ms: int | None = None
    """Only if its latest entry is still of this time."""
    over: Over | None = None
    """If it has ended, or is given up."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at the whole stream finds to do."""

    low_water: LowWater
    now_ms: int
    ready: Sequence[StreamKey]
    more: bool
    idle: Mapping[StreamKey, int]
    """Responses of which nothing came for the idle timeout, with their latest entry's milliseconds."""
    surplus: Mapping[StreamKey, int]
    """Those beyond the limit of open responses that were silent the longest, likewise."""


class Claim(NamedTuple):
    """What was taken over from others."""

    cursor: str
    """Where to go on; `0-0` when all have been looked at."""
    lost: Sequence[str]
    """Entries that were trimmed from the input while they were pending."""
    deliveries: Mapping[str, int]
    """Of each entry that is now this consumer's, how often it was delivered."""


class Group(Protocol):
    """Who holds which entries. Every method may raise `StorageUnavailableError`."""

    async def consumers(self) -> Sequence[str]:
        """The names of all consumers."""
        ...

    async def claim(self, idle_ms: int, cursor: str) -> Claim:
        """Take over entries that nobody has acknowledged for `idle_ms`."""
        ...

    async def inherit(self, gone: str) -> Mapping[str, int]:
        """Take over some of what a consumer that is gone left; with how often each was delivered."""
        ...

    async def deliver(self, entry_ids: Sequence[str], deliveries: int) -> Sequence[RawEntry]:
        """Give this consumer entries it holds, as their delivery of this number."""
        ...

    async def look_at(self, entry_ids: Sequence[str]) -> Sequence[RawEntry]:
        """Read entries without delivering them."""
        ...

    async def keep(self, entry_ids: Collection[bytes]) -> None:
        """Say that this consumer still works on these entries."""
        ...

    async def leave(self) -> int:
        """Say good-bye: what this consumer still holds may be taken over at once. Returns how many."""
        ...

    async def retire(self, idle_ms: int) -> Sequence[str]:
        """Remove consumers that were not heard of for so long and hold nothing."""
        ...

    async def trim(self, retention_ms: int) -> int:
        """Trim the input behind what every group has acknowledged, the outputs by age."""
        ...


class Storage(Protocol):
    """Where the sets live.

    Every method may raise `StorageUnavailableError`, having written all or nothing.
    """

    async def commit(self, commit: Commit) -> Committed:
        """Make a batch's effects durable and acknowledge it, in one step."""
        ...

    async def confirm(self) -> None:
        """Come back when what was written is as safe as the operator wants it: on disk, on replicas."""
        ...

    async def registers(self, parts: Sequence[PartKey]) -> Mapping[PartKey, Registers | None]:
        """For parts about to raise an alert, what is known of their response; None if it was raised."""
        ...

    async def load(self, stream_keys: Sequence[StreamKey]) -> Sequence[Loaded]:
        """Read responses."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[PartKey]:
        """Write finished texts with their alerts, once each; returns the parts that were not yet written."""
        ...

    async def survey(self, idle_timeout_ms: int, max_open: int) -> Survey:
        """Look for responses that can be settled though no batch says so."""
        ...
