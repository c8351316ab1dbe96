"""What the relay needs of the world: what is owed to a destination, and the right to pay it.

The stream of alerts is the outbox. Each destination has a consumer group of its own on it, and an alert that
was read and not acknowledged there is owed to the destination. `service/storage/outbox.py` keeps it in Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from handlers.core.identity import EntryId

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from deltaloom.messages import UndeliveredReason

RELAY_PREFIX = "relay:"
"""Of the names of all the relay's groups, which `trim.lua` knows them by."""

CONSUMER = "relay"
"""The one consumer of a destination's group: a lease says who that is, so there is nobody to tell apart."""

BEGINNING = EntryId(0, 0)
"""Before every entry."""


class Place(NamedTuple):
    """Where an alert is: its stream, and its id there."""

    stream: str
    id: EntryId


class Owed(NamedTuple):
    """An alert that was read for a destination and not acknowledged."""

    place: Place
    data: bytes | None
    """The alert's JSON; None if another program wrote an entry without."""


class Page(NamedTuple):
    """Some of what is owed, in the order of the stream."""

    entries: Sequence[Owed]
    upto: EntryId
    """Everything up to here was looked at."""
    more: bool
    lost: int
    """Of those looked at, how many were trimmed from the stream while they were owed; they are let go of."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a destination does not get an alert."""

    reason: UndeliveredReason
    answer: str
    """The last one, in a line that holds no secret."""
    attempts: int
    """By the relay that gave up."""
    failed_at: datetime


@dataclass(frozen=True, slots=True)
class KeptDigest:
    """Which alerts became one message: kept, so that whoever tries again sends the same one."""

    places: Sequence[Place]
    confirmed: bool
    """Whether it has arrived, and its alerts have only to be acknowledged."""


class Outbox(Protocol):
    """What is owed to one destination, on all partitions.

    Every method may raise `StorageUnavailableError`, having written all or nothing of what concerns a place.
    """

    async def owed(self, stream: str, after: EntryId, before: EntryId | None, idle_ms: int = 0) -> Page:
        """What is owed between two entries, both left out (None: to the end), and was read so long ago."""
        ...

    async def still_owed(self, places: Sequence[Place]) -> Sequence[Owed]:
        """Of these, what is owed."""
        ...

    async def settle(self, places: Collection[Place]) -> None:
        """They are owed no more: delivered, or not meant for this destination."""
        ...

    async def give_up(self, place: Place, failure: Failure) -> None:
        """Put an alert among the undelivered and owe it no more, in one step and once."""
        ...

    async def digests(self) -> Mapping[str, KeptDigest]:
        """The digests that are kept, by their ids."""
        ...

    async def keep_digest(self, digest_id: str, digest: KeptDigest) -> None:
        """Keep a digest."""
        ...

    async def drop_digest(self, digest_id: str) -> None:
        """Keep it no longer."""
        ...

    async def gone(self) -> str | None:
        """What the destination answered when it said that it is no more; None: it did not."""
        ...

    async def note_gone(self, answer: str, at: datetime) -> None:
        """Note that it is no more, until an operator says otherwise."""
        ...


class LeaseStore(Protocol):
    """Who may send to one destination. Every method may raise `StorageUnavailableError`."""

    async def hold(self, ttl_ms: int) -> bool:
        """Take the lease, or keep it for so much longer; whether it is this process's."""
        ...

    async def release(self) -> None:
        """Let go of it, if it is this process's."""
        ...
