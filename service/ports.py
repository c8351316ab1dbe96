"""What the pipeline needs of the world, and the plain data that goes to and fro."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from handlers.core.response import LowWater

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from deltaloom.messages import AssembledText, DeadLetter, ModerationAlert
    from handlers.core.context import Registers
    from handlers.core.effects import Ending
    from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
    from handlers.core.log import PartLog
    from handlers.core.response import ResponseState


class StorageUnavailableError(ConnectionError):
    """The server is away, or cannot take writes now: nothing was acknowledged, so try again."""

    def __init__(self, state: str, detail: str = "") -> None:
        super().__init__(f"{state}: {detail}" if detail else state)
        self.state = state
        """What is the matter, in a word: the same for every attempt that fails for the same reason."""


class RawEntry(NamedTuple):
    """An entry as the server gives it."""

    id: bytes
    fields: Mapping[bytes, bytes]


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


@dataclass(slots=True)
class PartChange:
    """What a batch adds to one part."""

    log: PartLog
    entries: list[int] = field(default_factory=list)
    """The batch's entry index of each fragment, to count those that are late."""
    opened: ModerationAlert | None = None


@dataclass(slots=True)
class ResponseChange:
    """What a batch adds to one response."""

    parts: dict[PartKey, PartChange] = field(default_factory=dict)
    endings: dict[Arrival, Ending] = field(default_factory=dict)
    registers: Registers = field(default_factory=dict)
    latest_ms: int = 0
    entries: set[int] = field(default_factory=set)
    """The batch's entry indexes it is made of."""


@dataclass(slots=True)
class Commit:
    """A batch: what it adds, and the entries to acknowledge with it."""

    entries: list[EntryId]
    responses: dict[StreamKey, ResponseChange] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)
    """For each event type without a handler, the batch's entry indexes it came in, one an event."""
    touched: dict[StreamKey, int] = field(default_factory=dict)
    """Responses that such events came of, with the latest entry's milliseconds."""
    dead_letters: list[tuple[int, DeadLetter]] = field(default_factory=list)
    """With the batch's entry index of each."""


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
    more: bool = False
    """Whether there may be more of them: a survey finds those."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A response as stored, and the version that a later write must still find."""

    state: ResponseState
    version: int


@dataclass(frozen=True, slots=True)
class FinishedText:
    """A text to write, with the alerts that go with it."""

    part: PartKey
    message: AssembledText
    opened: ModerationAlert | None
    finished: ModerationAlert | None


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

    async def keep(self, entry_ids: Collection[str]) -> None:
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
