"""The relay's port of storage: the alerts that are pending for a destination, and their acknowledgement.

The stream of alerts is the outbox. Each destination has its own consumer group on the stream. An alert that
was read through the group and not acknowledged is pending. `service/storage/redis_outbox.py` implements the
port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from handlers.core.identity import EntryId

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from deltaloom.messages import Delivery, UndeliveredReason
    from service.ports.deployment_figures import BacklogFigures

RELAY_PREFIX = "relay:"
"""Prefix of the relay's consumer groups, by which `trim.lua` recognizes them."""

CONSUMER = "relay"
"""Name of the only consumer of a destination's group; the lease decides which process that is."""

BEGINNING = EntryId(0, 0)
"""An id less than that of any entry."""


class EntryRef(NamedTuple):
    """A reference to an alert: its stream, and the id of its entry."""

    stream: str
    id: EntryId


class PendingAlert(NamedTuple):
    """An alert that was read for a destination and not acknowledged."""

    ref: EntryRef
    data: bytes | None
    """The alert's JSON; None if the entry has no such field, because another program wrote it."""


class Page(NamedTuple):
    """A page of pending alerts, in the order of the stream."""

    entries: Sequence[PendingAlert]
    upto: EntryId
    """The id of the last entry on the page; the next page begins after it."""
    more: bool
    """True if another page may follow."""
    lost: int
    """Number of alerts on the page that were trimmed while pending; they were acknowledged."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a destination cannot get an alert."""

    reason: UndeliveredReason
    answer: str
    """The destination's last answer, in one line without secrets; for `unreadable`, what is wrong with
    the entry."""
    attempts: int
    """Number of attempts by the relay that gave up."""
    failed_at: datetime


class Confirmation(NamedTuple):
    """The confirmation of a message by a destination."""

    answer: str
    """The destination's answer, in one line without secrets."""
    attempts: int
    at: datetime


class EndedDelivery(NamedTuple):
    """An alert that was delivered or given up, and the record of that."""

    ref: EntryRef
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class SavedDigest:
    """A saved digest: the alerts in one message, saved so that a retry sends the same message."""

    refs: Sequence[EntryRef]
    confirmation: Confirmation | None = None
    """The confirmation by the destination, after which the alerts need only be acknowledged; None before."""


class Outbox(Protocol):
    """The pending alerts of one destination, on all partitions.

    Any method may raise `StorageUnavailableError`. For each alert, it has then written either all or nothing.
    """

    async def pending_page(
        self, stream: str, after: EntryId, before: EntryId | None, idle_ms: int = 0
    ) -> Page:
        """Return a page of pending alerts, and acknowledge those that were trimmed from the stream.

        Args:
            stream: the stream of alerts.
            after: id after which the page begins.
            before: id before which the page ends, or None for the end of the stream.
            idle_ms: minimum milliseconds since an alert was last read; others are left out.
        """
        ...

    async def still_pending(self, refs: Sequence[EntryRef]) -> Sequence[PendingAlert]:
        """Return the alerts among these entries that are still pending."""
        ...

    async def backlog(self) -> BacklogFigures:
        """Return the figures of the alerts that the destination has still to get, pending or unread."""
        ...

    async def acknowledge(self, refs: Collection[EntryRef]) -> None:
        """Acknowledge alerts without recording a delivery.

        The caller chooses them: alerts that no route sends to this destination, and deleted entries.
        """
        ...

    async def record_delivered(self, ended: Sequence[EndedDelivery]) -> None:
        """Add each alert's delivery and acknowledge the alert, in one step.

        Alerts that are no longer pending are skipped.
        """
        ...

    async def give_up(self, ended: EndedDelivery, failure: Failure) -> None:
        """Copy an alert to the undelivered ones, add its delivery and acknowledge the alert, in one step.

        Do nothing if the alert is no longer pending.
        """
        ...

    async def digests(self) -> Mapping[str, SavedDigest]:
        """Return the saved digests, by id."""
        ...

    async def save_digest(self, digest_id: str, digest: SavedDigest) -> None:
        """Save a digest under an id; it replaces an earlier one with this id."""
        ...

    async def delete_digest(self, digest_id: str) -> None:
        """Delete a saved digest."""
        ...

    async def disabled_answer(self) -> str | None:
        """Return the answer with which the destination disabled itself, or None if it is enabled."""
        ...

    async def disable(self, answer: str, at: datetime) -> None:
        """Mark the destination as disabled by its answer, until an operator enables it."""
        ...


class LeaseStore(Protocol):
    """The lease to send to one destination. Any method may raise `StorageUnavailableError`."""

    async def acquire(self, ttl_ms: int) -> bool:
        """Acquire or extend the lease for `ttl_ms`; return whether this process holds it."""
        ...

    async def release(self) -> None:
        """Release the lease, if this process holds it."""
        ...
