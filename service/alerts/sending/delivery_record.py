"""Record how an alert ended at a destination: the `Delivery` that the relay's storage adds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from deltaloom.messages import Delivery
from handlers.core.identity import digest
from handlers.core.outputs import time_of
from service.visible import shortened, visible

if TYPE_CHECKING:
    from datetime import datetime

    from deltaloom.messages import DeliveryOutcome, ModerationAlert
    from service.alerts.delivery import Notification
    from service.ports.outbox import EntryRef

MAX_ANSWER: Final = 300
"""Maximum characters of an answer. Destinations give at most 200; invisible ones become escapes."""


@dataclass(frozen=True, slots=True)
class AcceptedAlert:
    """The facts of an alert that its delivery records. It has no text, so that many can wait in digests."""

    ref: EntryRef
    raised_at: datetime
    alert_id: str | None = None
    alert_type: str | None = None
    response_id: str | None = None
    item_id: str | None = None
    kind: str | None = None
    severity: str | None = None
    category: str | None = None
    rule: str | None = None
    route: str | None = None
    privacy: str | None = None
    traceparent: str | None = None

    @classmethod
    def of(cls, ref: EntryRef, alert: ModerationAlert, notification: Notification | None) -> AcceptedAlert:
        """Return the facts of an alert; `notification` is None if the destination gets no message."""
        accepted = cls(
            ref,
            alert.raised_at,
            alert.id,
            alert.type,
            alert.response_id,
            alert.item_id,
            alert.kind,
            traceparent=alert.traceparent,
        )
        if notification is None:
            return accepted
        return replace(
            accepted,
            severity=notification.severity,
            category=notification.category,
            rule=notification.rule,
            route=notification.route,
            privacy=notification.privacy,
        )

    @classmethod
    def unreadable(cls, ref: EntryRef) -> AcceptedAlert:
        """Return the facts of an entry that holds no alert."""
        return cls(ref, time_of(ref.id.ms))


def delivery_of(
    alert: AcceptedAlert,
    destination: str,
    outcome: DeliveryOutcome,
    answer: str,
    attempts: int,
    ended_at: datetime,
    digest_id: str | None = None,
) -> Delivery:
    """Return the record of an alert's end at a destination.

    Args:
        alert: the alert.
        destination: name of the destination.
        outcome: `delivered`, or the reason for giving the alert up.
        answer: the destination's last answer, without secrets and texts.
        attempts: number of attempts by this relay.
        ended_at: time of the confirmation, or at which the relay gave up.
        digest_id: id of the digest that the alert was a part of.
    """
    latency = ended_at - alert.raised_at
    return Delivery(
        id=digest("delivery", f"{destination}\n{alert.alert_id or alert.ref.id}"),
        destination=destination,
        outcome=outcome,
        attempts=attempts,
        answer=shortened(visible(answer), MAX_ANSWER),
        raised_at=alert.raised_at,
        delivered_at=ended_at if outcome == "delivered" else None,
        latency_ms=max(round(latency.total_seconds() * 1000), 0),  # a producer may choose ids in the future
        entry_id=str(alert.ref.id),
        alert_id=alert.alert_id,
        alert_type=alert.alert_type,
        response_id=alert.response_id,
        item_id=alert.item_id,
        kind=alert.kind,
        severity=alert.severity,
        category=alert.category,
        rule=alert.rule,
        route=alert.route,
        privacy=alert.privacy,
        digest_id=digest_id,
    )
