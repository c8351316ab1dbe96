"""A message to a destination: a notification, and the alerts that it delivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.alerts.delivery import Notification
    from service.ports.outbox import EntryRef


@dataclass(slots=True, eq=False)
class OutgoingMessage:
    """A message that is held, scheduled or under way. Times are seconds of the event loop's clock."""

    notification: Notification
    refs: Sequence[EntryRef]
    """Outbox references of the alerts in the message."""
    lanes: Sequence[str]
    """Deduplication keys of the alerts; messages in one lane are sent in order, one at a time."""
    expires_at: float
    """Time at which delivery is given up."""
    size: int = 0
    """Total size in bytes of the stored alerts."""
    attempts: int = 0
    saved: bool = False
    """True if the outbox has the list of alerts of this digest (`SavedDigest`)."""
