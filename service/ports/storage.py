"""What the pipeline needs of the world, and the plain data that goes to and fro."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from handlers.core.state import LowWater

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Self

    from deltaloom.messages import AssembledText, ModerationAlert, RateScope
    from handlers.core.context import Registers
    from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
    from handlers.core.state import ResponseState
    from service.ports.commit import Commit


class StorageUnavailableError(ConnectionError):
    """The server is away, or cannot take writes now: nothing was acknowledged, so try again."""

    def __init__(self, state: str, detail: str = "") -> None:
        super().__init__(f"{state}: {detail}" if detail else state)
        self.state = state
        """What is the matter, in a word: the same for every attempt that fails for the same reason."""


class SetUpWronglyError(StorageUnavailableError):
    """The server does not let us do it until somebody mends how it, or what is in it, is set up.

    Nothing was acknowledged. The message names what is wrong and what to do.
    """


class RawEntry(NamedTuple):
    """An entry as the server gives it (which may be a plain list of the two)."""

    id: bytes
    fields: list[bytes]
    """Names and values in turn."""


class Beginning(RawEntry):
    """The first fields of an entry that has more than somebody wanted to read; the last value may be cut."""

    whole_bytes: int = 0
    """Bytes of all its fields."""

    @classmethod
    def of(cls, entry_id: bytes, fields: list[bytes], whole_bytes: int) -> Self:
        """Return what was read of an entry that has so many bytes."""
        beginning = cls(entry_id, fields)
        beginning.whole_bytes = whole_bytes
        return beginning


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
    whole_bytes: int = 0
    """Bytes of all its fields, if `fields` are only the first of them."""


class Contradicted(NamedTuple):
    """The stored facts about a finished part for which a commit has another text."""

    digest: str
    """The digest of the part's text."""
    registers: Registers
    """The context of its response, as far as it is still stored."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a commit."""

    overflowing: Sequence[PartKey] = ()
    """Parts that would grow beyond their limit. If there are any, nothing at all was written."""
    pieces: int = 1
    """In how many commits it has to be made, because one would hold up the server for too long. If there are
    several, nothing at all was written."""
    crowded: Sequence[PartKey] = ()
    """Parts that would be too many of their response. If there are any, nothing at all was written."""
    noted_too_often: Sequence[StreamKey] = ()
    """Responses with too many endings of items, and notes. If there are any, nothing at all was written."""
    contradicted: Mapping[PartKey, Contradicted] = field(default_factory=dict)
    """Finished parts for which the batch has another text, and no alert yet. If there are any, nothing at all
    was written: commit again with an alert for each."""
    told_of_crowds: Sequence[int] = ()
    """The batch's entries whose letter about a response with too many parts was written."""
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
    surplus: int = 0
    """How many more responses are open than may be; at most as many as the batch told something new of."""
    history: str = ""
    """Which history of the data this is true of: after a failover or a restart it is another one."""
    now_ms: int = 0
    """The server's time."""
    still_there: Sequence[int] | None = None
    """Where the history is another than at the last commit, nothing was written, and some of what was written
    before may be lost; this names the batch's entries that are still there, by their numbers."""

    @property
    def stored(self) -> bool:
        """False if nothing was written."""
        return not self.must_change and self.pieces == 1 and self.still_there is None

    @property
    def must_change(self) -> bool:
        """True if nothing was written: the batch has to be changed before it can be."""
        return bool(self.overflowing or self.crowded or self.noted_too_often or self.contradicted)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A response as stored, and the version that a later write must still find."""

    state: ResponseState
    version: int
    log_bytes: Mapping[PartKey, int]
    """How long the logs of its open parts were."""
    alerted: Collection[PartKey]
    """Open parts of which the alert was raised."""


@dataclass(frozen=True, slots=True)
class FinishedText:
    """A text to write, with the alerts that go with it."""

    part: PartKey
    message: AssembledText
    opened: ModerationAlert | None
    """To be raised if it was not yet."""
    finished: ModerationAlert | None
    log_bytes: int
    """How long its log was: if it has grown since, the text has to be read again."""
    late: int
    """Events of the log that came too late for it."""
    contradicted: ModerationAlert | None = None
    """The alert that another authoritative text came for the part; None: none came."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A part that is a copy of another: nothing is written of it."""

    part: PartKey
    log_bytes: int
    """How long its log was: if it has grown since, it has to be read again."""
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
    refused: bool = False
    """True if the reason means that the model declined. Storage itself knows of refusal parts."""
    blocked: bool = False
    """True if a filter, a policy or a guardrail stopped it."""
    cancelled: bool = False
    """True if it was cancelled: then it does not count, unless it was refused."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to write for one response."""

    stream_key: StreamKey
    version: int
    closed: Sequence[FinishedText | Dropped]
    """To be settled in this order. From the first for which something has come, all is read again."""
    spent: Sequence[Arrival]
    """Endings that nothing waits for any more."""
    doubtful_since: EntryId | None
    ended: bool
    """Nothing more is expected: forget the response once nothing of it is open."""
    idle_since_ms: int | None = None
    """Only if its latest entry is still of this time."""
    over: Over | None = None
    """If it has ended, or is given up."""
    contradictions: Mapping[PartKey, ModerationAlert] = field(default_factory=dict)
    """Alerts about other authoritative texts of parts that were finished before, raised once a part."""
    partial: bool = False
    """True if more of the response's parts follow in a later call, and then what its end means."""
    earlier: Sequence[PartKey] = ()
    """The parts that were settled in the calls before."""

    @property
    def texts(self) -> list[FinishedText]:
        """The texts to be written."""
        return [each for each in self.closed if isinstance(each, FinishedText)]


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at the whole stream finds to do."""

    low_water: LowWater
    now_ms: int
    ready: Sequence[StreamKey]
    more: bool
    """True if there may be more than this survey names."""
    idle: Mapping[StreamKey, int]
    """Responses of which nothing came for the idle timeout, with their latest entry's milliseconds."""
    surplus: Mapping[StreamKey, int]
    """Those beyond the limit of open responses that were silent the longest, likewise."""
    history: str = ""
    """As in `Committed`."""


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

    async def look_at(self, entry_id: str, at_most: int) -> RawEntry | None:
        """Read an entry without delivering it.

        Returns:
            The entry, or about `at_most` bytes of it as a `Beginning`; None if it is not there (any more).
        """
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

    @property
    def history(self) -> str:
        """Which history of its data it was in when it was last asked; empty: not yet."""
        ...

    @property
    def now_ms(self) -> int:
        """The server's time, in milliseconds since the epoch."""
        ...

    async def commit(self, commit: Commit, history: str = "", *, whole: bool = False) -> Committed:
        """Make a batch's effects durable and acknowledge it, in one step.

        Args:
            commit: the batch, or a piece of one.
            history: what it was when the batch was read, if that is known.
            whole: try it however long it takes.
        """
        ...

    async def note_owners(self, owners: Mapping[bytes, StreamKey]) -> None:
        """Note whose pending entries are, so that no text of others waits for them."""
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

    async def settle(self, settlements: Sequence[Settlement], history: str) -> Sequence[PartKey]:
        """Write finished texts with their alerts, once each; returns the parts that were not yet written.

        Nothing is written if the history of the data is another than the one that all this was read from.
        """
        ...

    async def set_aside(self, stream_key: StreamKey) -> None:
        """Give up settling a response: nobody looks at it again unless more comes."""
        ...

    async def survey(self, idle_timeout_ms: int) -> Survey:
        """Look for responses that can be settled though no batch says so: ready or idle ones."""
        ...

    async def surplus(self, max_open: int, at_most: int | None = None) -> Survey:
        """Look for responses beyond the limit of open ones, so many at most, if that is given."""
        ...
