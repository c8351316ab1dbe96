"""What a destination is handed, and what it answers: the border between deciding and sending.

Deciding (`alerts.toml`: routes, rules, privacy) makes a `Notification` of an alert. The relay hands it to a
`Destination`, again and again until the `Outcome` is final. A destination does one attempt and knows nothing
of retries; the relay knows nothing of what is sent.
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
"""How much of the text leaves: all of it, its first characters, or its hash only."""


@dataclass(frozen=True, slots=True)
class Digest:
    """Several similar alerts that became one message."""

    count: int
    """Alerts in it."""
    since: datetime
    until: datetime
    counts: Sequence[tuple[str, int]]
    """How many of what, most first, such as `("refusal.opened · gpt-4o", 12)`."""
    examples: Sequence[Notification]
    """Three of them, at most."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to one destination. Whatever must not leave is not in it any more."""

    id: str
    """Stable: every attempt, of every process, has the same. A receiver drops repeats by it."""
    alert: ModerationAlert
    """As it may leave: its text redacted, cut or empty. Of a digest, the first of its alerts."""
    severity: AlertSeverity
    """The severity that the rules give; `alert.severity` is the worker's. A later version may add values."""
    category: str
    rule: str | None
    """The rule that gave severity and category, if one did."""
    route: str
    privacy: Privacy
    text_sha256: str | None
    """Of the whole text as UTF-8, before redaction; None where there is none."""
    group: str
    """What belongs together: a part's alerts share it, and a digest's key is its group's. A dedup key."""
    resolves: bool = False
    """Whether this ends what an earlier one of the same group began (`finished`, the end of a spike)."""
    digest: Digest | None = None
    test: bool = False
    """Sent by `deltaloom alerts test`, and marked so wherever a person looks."""


class Verdict(Enum):
    """What becomes of a notification after an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    """Not now: no answer, a server error, 408, 425, 429."""
    REFUSED = "refused"
    """Never: the destination understood and declined (any other 4xx), or the notification cannot be sent."""
    GONE = "gone"
    """The destination is no more (410): nothing else may be sent to it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended."""

    verdict: Verdict
    answer: str
    """One line for a person: status and the beginning of the answer, or the error. Holds no secret."""
    retry_after: float | None = None
    """Seconds that the destination asked to wait, where it did."""


class Destination(Protocol):
    """Somewhere alerts go."""

    @property
    def name(self) -> str:
        """Its name in `alerts.toml`."""
        ...

    async def deliver(self, notification: Notification) -> Outcome:
        """Make one attempt. Does not raise for anything the network or the receiver does."""
        ...

    async def aclose(self) -> None:
        """Give back connections."""
        ...
