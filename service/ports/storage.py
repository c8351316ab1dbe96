"""The pipeline's port of storage, and the plain data that it exchanges with it.

The port is the border between the meaning of a batch and its form in Redis, so that each is read and tested
without the other. It is no plug for other databases: its methods promise what the Lua scripts give, above all
effects and acknowledgement in one atomic step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from handlers.core.state import LowWater

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Self

    from deltaloom.messages import AssembledText, Kind, ModerationAlert, RateScope
    from handlers.core.context import Registers
    from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
    from handlers.core.state import ResponseState
    from service.ports.commit import Commit


class StorageUnavailableError(ConnectionError):
    """The server is unavailable or refuses writes, so retry.

    No entry is acknowledged before its effects are stored.
    """

    def __init__(self, state: str, detail: str = "") -> None:
        super().__init__(f"{state}: {detail}" if detail else state)
        self.state = state
        """The cause in a word; the same for all attempts that fail for the same reason."""


class SetupError(StorageUnavailableError):
    """The server refuses a command until an operator corrects its setup or its data.

    Nothing was acknowledged. The message has the cause and the remedy.
    """


class RawEntry(NamedTuple):
    """An entry as the server sends it. A reader of batches passes plain lists of the two values instead."""

    id: bytes
    fields: list[bytes]
    """Names and values, alternating."""


class Beginning(RawEntry):
    """The first fields of an entry that is larger than requested; the last value may be truncated."""

    whole_bytes: int = 0
    """Bytes of all names and values of the entry."""

    @classmethod
    def of(cls, entry_id: bytes, fields: list[bytes], whole_bytes: int) -> Self:
        """Return the beginning of an entry of `whole_bytes` bytes."""
        beginning = cls(entry_id, fields)
        beginning.whole_bytes = whole_bytes
        return beginning


class Entry(NamedTuple):
    """An entry of the input stream.

    `body` is the JSON of an event or of an array of events; None if the entry has one event as flat fields.
    `headers` are the headers in the envelope of the producer's message.
    """

    id: EntryId
    fields: Mapping[bytes, bytes]
    body: bytes | None
    headers: Mapping[str, str]
    deliveries: int = 1
    whole_bytes: int = 0
    """Bytes of the whole entry if `fields` is only its beginning, else 0."""


class Contradicted(NamedTuple):
    """The stored data of a finished part, if a commit has a text for it that differs."""

    digest: str
    """The digest of the part's text."""
    registers: Registers
    """The context of its response; empty if it is no longer stored."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The result of a commit."""

    overflowing: Sequence[PartKey] = ()
    """Parts that would exceed their own limits, or the byte limit of their response. If there are any,
    nothing was written."""
    pieces: int = 1
    """Number of commits into which the batch must be cut, because one would block the server for too long. If
    it is above 1, nothing was written."""
    by_response: bool = False
    """True if `Commit.pieces` gives commits that are small enough. If False, a batch of several entries must
    be cut into batches of fewer entries."""
    crowded: Sequence[PartKey] = ()
    """New parts beyond the limit of parts per response. If there are any, nothing was written."""
    too_many_notes: Sequence[StreamKey] = ()
    """Responses with too many notes or endings of items. If there are any, nothing was written."""
    contradicted: Mapping[PartKey, Contradicted] = field(default_factory=dict)
    """Finished parts for which the batch has another text but no alert. If there are any, nothing was
    written: commit again with an alert for each."""
    reported_crowds: Sequence[int] = ()
    """Indexes of the entries for which the dead letter about a response with too many parts was written."""
    acknowledged: int = 0
    """Number of acknowledged entries."""
    pending_entries: Collection[int] | None = None
    """Indexes of the entries that were still pending; the others were acknowledged before. Only events of
    pending entries were counted, and only their dead letters written. None if all were pending, as usual."""
    opened_parts: Sequence[PartKey] = ()
    """Parts for which this commit has raised the opening alert."""
    disputed_parts: Sequence[PartKey] = ()
    """Parts for which this commit has raised the alert `PartChange.contradicted`."""
    late_events: int = 0
    """Number of deltas for finished parts."""
    low_water: LowWater = LowWater()
    ready: Sequence[StreamKey] = ()
    """Responses with a closing that the low-water mark has passed. If the mark is stalled, also the waiting
    responses of this batch."""
    loaded: Sequence[LoadedResponse] = ()
    """Ready responses that the commit has loaded; `ready` has the others."""
    loaded_keys: Sequence[StreamKey] = ()
    """The keys of `loaded`. Reading them does not decode the responses."""
    more: bool = False
    """True if more responses may be ready; a survey finds them."""
    surplus: int = 0
    """Number of open responses beyond the limit, but at most the number of responses that this batch changed
    by more than further deltas."""
    replication_id: str = ""
    """The server's replication id, which changes with a failover or a restart."""
    now_ms: int = 0
    """The server's time in milliseconds since the epoch."""
    surviving_entries: Sequence[int] | None = None
    """Indexes of the batch's entries that the server still has, if its replication id is not the expected
    one. Then nothing was written, and earlier writes may be lost. None if the replication id is as expected.
    """

    @property
    def stored(self) -> bool:
        """True if the batch was written."""
        return not self.must_change and self.pieces == 1 and self.surviving_entries is None

    @property
    def must_change(self) -> bool:
        """True if nothing was written because the batch exceeds a limit or lacks an alert."""
        return bool(self.overflowing or self.crowded or self.too_many_notes or self.contradicted)


@dataclass(frozen=True, slots=True)
class LoadedResponse:
    """A stored response and its version.

    If the version has changed by the time of its settlement, the response goes on waiting.
    """

    state: ResponseState
    version: int
    log_bytes: Mapping[PartKey, int]
    """Bytes of the logs of its open parts."""
    alerted: Collection[PartKey]
    """Open parts for which the opening alert was raised."""


@dataclass(frozen=True, slots=True)
class TextToWrite:
    """A finished text to write, with its alerts."""

    part: PartKey
    message: AssembledText
    opened: ModerationAlert | None
    """The opening alert, which is raised unless it was raised before; None if the part needs none."""
    finished: ModerationAlert | None
    """The finishing alert; None if the part needs none."""
    log_bytes: int
    """Bytes of the log when it was read; if it has changed since, nothing is written and it is read again."""
    late: int
    """Number of deltas in the log that came after the closing event."""
    contradicted: ModerationAlert | None = None
    """The alert about another authoritative text for the part; None if none came."""


@dataclass(frozen=True, slots=True)
class CopyToDrop:
    """A part that is a copy of another one: its log is deleted and no text is written."""

    part: PartKey
    log_bytes: int
    """Bytes of the log when it was read; if it has changed since, the part is read again."""
    late: int
    """Number of deltas in the log that came after the closing event."""


@dataclass(frozen=True, slots=True)
class ResponseOutcome:
    """The effects of a response's end, applied once even if several events end the response."""

    at_ms: int
    """Milliseconds of the first event that ended the response; the server's time if it was given up."""
    counted_for: Sequence[tuple[RateScope, str]]
    """The models, tenants and providers to count the response for; empty if its id is unknown."""
    alerts: Sequence[ModerationAlert]
    """Alerts about the way it ended; each type is raised once."""
    refused: bool = False
    """True if the reason means that the model refused."""
    blocked: bool = False
    """True if a filter, a policy or a guardrail stopped it."""
    cancelled: bool = False
    """True if it was cancelled; it is then counted only if it was refused."""
    refusing: Collection[Kind] = ()
    """Kinds of text that make a response count as refused once the opening alert of one is raised."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """The changes to write for one response."""

    stream_key: StreamKey
    version: int
    closed: Sequence[TextToWrite | CopyToDrop]
    """Parts to finish, in this order. If a log has changed, its part and all after it are read again."""
    applied_endings: Sequence[Arrival]
    """Applied endings, to be deleted."""
    unsettled_since: EntryId | None
    """Earliest entry that closed a part, or ended the response, and is not yet settled; None if none is."""
    ended: bool
    """True if no more events are expected: write a marker once no part is open, and let the state expire."""
    idle_since_ms: int | None = None
    """Last activity in milliseconds, as storage has it; if it changed, nothing is written. None: no check."""
    outcome: ResponseOutcome | None = None
    """The effects of its end; None if it has not ended and is not given up."""
    contradictions: Mapping[PartKey, ModerationAlert] = field(default_factory=dict)
    """Alerts about other authoritative texts of parts finished before, raised once per part."""
    partial: bool = False
    """True if a later call has more parts of the response and the effects of its end."""
    earlier: Sequence[PartKey] = ()
    """The parts that earlier calls have settled."""

    @property
    def texts(self) -> list[TextToWrite]:
        """The finished texts to write, without dropped copies."""
        return [each for each in self.closed if isinstance(each, TextToWrite)]


@dataclass(frozen=True, slots=True)
class Survey:
    """The responses that can be settled without a batch."""

    low_water: LowWater
    now_ms: int
    ready: Sequence[StreamKey]
    more: bool
    """True if there may be more responses than this survey returns."""
    idle: Mapping[StreamKey, int]
    """Responses without an entry for the idle timeout, with the milliseconds of their last activity. As
    stored, these are up to a second too late."""
    surplus: Mapping[StreamKey, int]
    """Longest idle responses beyond the limit of open ones, with the milliseconds of their last activity."""
    replication_id: str = ""
    """The server's replication id."""


class Claim(NamedTuple):
    """The result of a claim."""

    cursor: str
    """The cursor of the next claim; `0-0` after the last page."""
    lost: Sequence[str]
    """Ids of entries that were trimmed from the input while pending."""
    deliveries: Mapping[str, int]
    """The delivery count of each claimed entry, by id."""


class Group(Protocol):
    """The worker's consumer group. Any method may raise `StorageUnavailableError`."""

    async def consumers(self) -> Sequence[str]:
        """Return the names of all consumers."""
        ...

    async def claim(self, idle_ms: int, cursor: str) -> Claim:
        """Claim entries that have been idle for `idle_ms`, from `cursor` on (`0-0` to begin).

        The delivery counts stay unchanged.
        """
        ...

    async def adopt(self, gone: str) -> Mapping[str, int]:
        """Claim some pending entries of the stopped consumer `gone`; return their delivery counts by id.

        Return an empty mapping if no entry is left.
        """
        ...

    async def deliver(self, entry_ids: Sequence[str], deliveries: int) -> Sequence[RawEntry]:
        """Read pending entries of this consumer in id order, and set their delivery count to `deliveries`.

        Entries that were trimmed from the stream are not returned.
        """
        ...

    async def look_at(self, entry_id: str, at_most: int) -> RawEntry | None:
        """Read an entry without delivering it.

        Returns:
            The entry, or a `Beginning` with about `at_most` bytes if it is larger; None if it does not exist.
        """
        ...

    async def renew(self, entry_ids: Collection[bytes]) -> None:
        """Reset the idle time of this consumer's entries, so that no other worker claims them."""
        ...

    async def leave(self) -> int:
        """Release this consumer's pending entries to other workers at once; return their number."""
        ...

    async def remove_idle_consumers(self, idle_ms: int) -> Sequence[str]:
        """Remove other consumers that hold nothing and have been idle for `idle_ms`; return their names.

        This consumer counts as active from now on.
        """
        ...

    async def trim(self, retention_ms: int) -> int:
        """Trim the input up to the first entry that a group needs, and the outputs to `retention_ms`.

        Return the number of entries trimmed from the input.
        """
        ...


class Storage(Protocol):
    """The storage of one partition.

    Any method may raise `StorageUnavailableError`. It may then have written nothing, a part or all, so call
    it again: a repeated call does not change what is already written.
    """

    @property
    def replication_id(self) -> str:
        """The server's replication id at the last commit; empty before the first."""
        ...

    @property
    def now_ms(self) -> int:
        """The estimated time of the server, in milliseconds since the epoch."""
        ...

    async def commit(self, commit: Commit, replication_id: str = "", *, whole: bool = False) -> Committed:
        """Store a batch's effects and acknowledge its entries, atomically.

        A commit may be passed again, for example after a lost reply: what is already stored stays as it is.

        Args:
            commit: the batch, or a piece of one.
            replication_id: the replication id that was reported before the batch was read; empty for the one
                that the last commit reported.
            whole: True to commit even if that blocks the server for long; else `pieces` of the result may
                be above 1.
        """
        ...

    async def record_owners(self, owners: Mapping[bytes, StreamKey]) -> None:
        """Record the responses of pending entries, so that texts of other responses do not wait for them."""
        ...

    async def confirm(self) -> None:
        """Wait until all writes are on the disk and the replicas that the settings require."""
        ...

    async def registers_for_opening(self, parts: Sequence[PartKey]) -> Mapping[PartKey, Registers | None]:
        """Return the stored context of the parts' responses, for opening alerts.

        A value of None means that the commit needs no alert for the part: it was raised before, or the part
        is stored and did not begin with a delta, so that settlement raises it.
        """
        ...

    async def load(self, stream_keys: Sequence[StreamKey]) -> Sequence[LoadedResponse]:
        """Read the responses with these keys; return them in the same order."""
        ...

    async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> Sequence[PartKey]:
        """Write finished texts and their alerts, once each; return the parts that this call has written.

        Nothing is written if the replication id is not `replication_id`, under which the responses were read.
        """
        ...

    async def set_aside(self, stream_key: StreamKey) -> None:
        """Set a response aside: it is settled again only if more events come.

        A repeated call may count the response twice.
        """
        ...

    async def survey(self, idle_timeout_ms: int) -> Survey:
        """Return the responses that are ready, and those without an entry for the idle timeout."""
        ...

    async def surplus(self, max_open: int, at_most: int | None = None) -> Survey:
        """Return at most `at_most` of the responses beyond `max_open` open ones.

        None for `at_most` means the storage's own limit.
        """
        ...
