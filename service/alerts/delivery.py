"""Types shared by routing and delivery: notifications, destinations and outcomes.

The policy (`deciding/`) turns an alert into a `Notification`, the content of a message to one destination.
The relay (`sending/`) schedules it as an `OutgoingMessage`, and passes it to a `Destination` until the
`Outcome` is final. The relay decides when to send. A destination makes one attempt and knows nothing of
retries.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from deltaloom.messages import AlertSeverity, ModerationAlert

Privacy = Literal["full", "excerpt", "none"]
"""Share of the text that is sent: all of it, an excerpt of its beginning, or only its hash."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A summary of several similar alerts that are sent as one message."""

    count: int
    """Number of alerts summarized."""
    since: datetime
    until: datetime
    counts: Sequence[tuple[str, int]]
    """Label and number of alerts, largest number first, such as `("refusal.opened · gpt-4o", 12)`."""
    examples: Sequence[Notification]
    """Up to three of the summarized notifications."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A message to one destination. The text that must not be sent has already been removed."""

    id: str
    """Stable id: the same for every attempt by every process. A receiver drops repeats by it."""
    alert: ModerationAlert
    """The alert as it is sent: its text redacted, cut or empty. A digest holds the first of its alerts."""
    severity: AlertSeverity
    """The severity given by the rules; `alert.severity` is the worker's. A later version may add values."""
    category: str
    rule: str | None
    """Name of the rule that gave severity and category; None if no rule fits."""
    route: str
    privacy: Privacy
    text_sha256: str | None
    """SHA-256 of the alert's text as UTF-8, before it was redacted and cut; for `opened`, of the text so far.
    None for a digest or an alert without text."""
    dedup_key: str
    """The same for the beginning and the end of a refusal or a spike (`dedup_key_of`); for
    a digest, derived from its grouping key."""
    resolves: bool = False
    """True if this ends what an earlier message with the same key began (`finished`, the end of a spike), and
    is not more severe: see `Policy`."""
    digest: Digest | None = None
    test: bool = False
    """True for a heartbeat or the message of `deltaloom alerts test`; every human-readable form marks it."""


class Verdict(Enum):
    """The result of one attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    """Temporary failure: no answer, a redirect, a server error, or status 408, 425 or 429."""
    REFUSED = "refused"
    """Permanent failure: the destination declined (any other 4xx), or the notification cannot be sent."""
    GONE = "gone"
    """The destination no longer exists (410); nothing else may be sent to it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on one attempt, with its details."""

    verdict: Verdict
    answer: str
    """Status and beginning of the answer, or the error, in one line for a person. Contains no secret."""
    retry_after: float | None = None
    """Seconds that the destination asked to wait; None if it did not ask."""


class Destination(Protocol):
    """A receiver of notifications."""

    @property
    def name(self) -> str:
        """Return the destination's name in `alerts.toml`."""
        ...

    async def deliver(self, notification: Notification) -> Outcome:
        """Make one attempt. Do not raise for anything that the network or the receiver does."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...
