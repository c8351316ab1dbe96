"""A cache of the data that storage already has, so that batches need not send it again.

Nearly every event is one more delta of a part that is stored. If this process has recently sent the item id
and the context, and set the TTL, it sends only the delta. If the omitted data is missing after all, as after
a flush, the script reports that, and the worker sends everything again. A cache miss costs only a few
more bytes, so the cache may drop a response at any time. It drops responses that have ended, and unused ones
if it is full.

Planning a commit only reads the cache. The plan lists what it sends (`Sends`), and the caller records that
once storage has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from handlers.core.identity import EntryId
from service.two_generation_cache import TwoGenerationCache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.core.effects import ContextValues
    from handlers.core.identity import PartKey, StreamKey
    from service.ports.commit import ContextClaim

_RESPONSES = 10_000
"""Size of a generation of the cache; at most twice as many responses are cached."""

_CLAIMS = 8
"""Maximum context claims kept per response; others are compared register by register. Two or three are usual,
but some producers send a new `traceparent` with each event."""

_NEVER = EntryId(2**64, 0)
"""An id greater than that of any entry."""


class PartSend(NamedTuple):
    """The data of a part that a commit sends: its item id, a chunk of its log, and a new TTL."""

    part: PartKey
    field: str
    """Name of the part within its response."""
    log: str
    """Key of its log."""
    item_id: str | None
    """Item id of the earliest event of the commit with one; None if none has one."""
    item_id_entry: EntryId
    """Id of the entry that gave the item id; of no meaning if `item_id` is None."""
    ids_differ: bool
    """True if the events have several item ids."""
    chunk_bytes: int
    """Number of bytes of the chunk."""


class ResponseSend(NamedTuple):
    """The data of a response that a commit sends because storage may lack it."""

    key: StreamKey
    member: str
    """Name of the response in the sorted sets `open` and `waiting`."""
    state: str
    """Key of its state."""
    claims: Mapping[ContextClaim, EntryId]
    """Context claims of the response's entries, each with its earliest entry; empty if storage has them."""
    parts: Sequence[PartSend]
    """Parts of which storage may lack the item id, or whose TTL must be set again."""


class Sends(NamedTuple):
    """The data that a commit sends, to be recorded once storage has it."""

    responses: Sequence[ResponseSend]
    activities: Sequence[tuple[StreamKey, int]]
    """Responses, each with its new last activity in ms since the epoch, as it is stored: up to a second too
    late."""
    grown: Sequence[tuple[SentPart, int]]
    """Parts in responses that only grow, each with the number of bytes of the new chunk."""
    due: float
    """Monotonic time in seconds at which the TTLs of the parts in `responses` must be set again."""


class SentPart:
    """The data of a part that this process has sent."""

    __slots__ = ("_ids_differ", "_item_id", "_item_id_entry", "due", "field", "large", "log", "log_bytes")

    def __init__(self, field: str, log: str) -> None:
        self.field = field
        self.log = log
        """The key of its log."""
        self.log_bytes = 0
        """Bytes of the log that are known here. Other workers may have appended more, and so may commits that
        add more than fragments to the response."""
        self._item_id: str | None = None
        self._item_id_entry: EntryId | None = None
        """The earliest entry with an item id that was sent; None if none was."""
        self._ids_differ = False
        self.due = 0.0
        """Monotonic time in seconds at which the TTL must be set again."""
        self.large = False
        """True if the log may be near a limit, so that the script must check it before each chunk."""

    def has_item_id(self, item_id: str | None, entry: tuple[int, int], *, ids_differ: bool) -> bool:
        """Return whether storage already has the item ids of some events of a commit, as far as was recorded.

        It has them if no event has one. It also has them if an item id of `entry` or of an earlier entry was
        sent, and either the events have only that id, or several ids are known to storage.

        Args:
            item_id: the item id of the earliest event with one; None if no event has one.
            entry: the id of the entry that gave `item_id`.
            ids_differ: true if the events have several item ids.
        """
        if item_id is None:
            return True
        if self._item_id_entry is None or entry < self._item_id_entry:
            return False
        return self._ids_differ or (item_id == self._item_id and not ids_differ)

    def record_item_id(self, item_id: str | None, entry: EntryId, *, ids_differ: bool) -> None:
        """Record that the item ids of some events were sent; the arguments are those of `has_item_id`.

        An item id of None changes nothing.
        """
        if item_id is None:
            return
        self._ids_differ = self._ids_differ or ids_differ or self._item_id not in {None, item_id}
        if self._item_id_entry is None or entry < self._item_id_entry:
            self._item_id, self._item_id_entry = item_id, entry


class SentResponse:
    """The data of a response that this process has sent."""

    __slots__ = ("_claims", "_context", "_context_entry", "_since", "activity_ms", "member", "parts", "state")

    def __init__(self, member: str, state: str) -> None:
        self.member = member
        self.state = state
        """The key of its state."""
        self.activity_ms = 0
        """Last activity that storage has, in ms since the epoch, up to a second too late."""
        self.parts: dict[PartKey, SentPart] = {}
        self._since: dict[tuple[str, bool], EntryId] = {}
        """The earliest entry that was sent for each register; a later one changes nothing."""
        self._claims: dict[ContextClaim, EntryId] = {}
        """The context claims that were sent, each with its earliest entry."""
        self._context: ContextValues | None = None
        """The producer's context in the latest claim that was sent. The batches of a response share the
        object, and comparing it takes a fraction of hashing it."""
        self._context_entry = _NEVER
        """The earliest entry that was sent with `_context`."""

    def knows(self, claims: Mapping[ContextClaim, EntryId]) -> bool:
        """Return whether each of these claims, with its earliest entry, was sent or changes no register."""
        for claim, entry in claims.items():
            if claim[0] is self._context and not claim[1] and entry >= self._context_entry:
                continue
            before = self._claims.get(claim)
            if (before is None or entry < before) and not self._has_earlier(claim, entry):
                return False
        return True

    def _has_earlier(self, claim: ContextClaim, entry: EntryId) -> bool:
        """Return whether each register of a claim was sent with this entry or an earlier one."""
        context, learned = claim
        return all(self._since.get((name, learned), _NEVER) <= entry for name, _ in context.pairs())

    def record(self, claims: Mapping[ContextClaim, EntryId]) -> None:
        """Record that these claims, each with its earliest entry, were sent."""
        for claim, entry in claims.items():
            context, learned = claim
            if not learned:
                earlier = self._context_entry if context is self._context else entry
                self._context, self._context_entry = context, min(entry, earlier)
            if claim in self._claims or len(self._claims) < _CLAIMS:
                self._claims[claim] = min(entry, self._claims.get(claim, entry))
            for name, _ in context.pairs():
                self._since[name, learned] = min(entry, self._since.get((name, learned), entry))


class SentStates:
    """The cache: the sent data of each response, until it ends or is dropped."""

    def __init__(self) -> None:
        self._responses: TwoGenerationCache[StreamKey, SentResponse] = TwoGenerationCache(_RESPONSES)

    def get(self, key: StreamKey) -> SentResponse | None:
        """Return the sent data of a response, or None if it is not cached.

        The response counts as used, so that it is not among the first ones to be dropped.
        """
        return self._responses.get(key)

    def record(self, sends: Sends) -> None:
        """Record that storage has the data that a commit sent, in the cached responses or in new ones.

        Activities of responses that are not cached are ignored.
        """
        for key, member, state, claims, parts in sends.responses:
            response = self._responses.get(key) or SentResponse(member, state)
            response.record(claims)
            for part, field, log, item_id, item_id_entry, ids_differ, chunk_bytes in parts:
                sent = response.parts.setdefault(part, SentPart(field, log))
                sent.due = sends.due
                sent.log_bytes += chunk_bytes
                sent.record_item_id(item_id, item_id_entry, ids_differ=ids_differ)
            self._responses[key] = response
        for sent, chunk_bytes in sends.grown:
            sent.log_bytes += chunk_bytes
        for key, ms in sends.activities:
            if (known := self._responses.get(key)) is not None:
                known.activity_ms = max(ms, known.activity_ms)

    def mark_large(self, part: PartKey) -> None:
        """Record that a part's log may be near a limit, so that commit.lua has to check its size from now on.

        Do nothing if the part is not cached.
        """
        response = self._responses.get(part.stream_key)
        if response is not None and part in response.parts:
            response.parts[part].large = True

    def remove(self, key: StreamKey) -> None:
        """Remove a response, if it is cached, so that all its data is sent again."""
        self._responses.discard(key)
