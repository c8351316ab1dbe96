"""Outgoing messages for the tests of their order."""

from __future__ import annotations

from typing import Any

from handlers.core.identity import EntryId
from service.alerts.delivery import Notification
from service.alerts.phases import dedup_key_of
from service.alerts.sending.message import OutgoingMessage
from service.ports.outbox import EntryRef
from tests.service.alerts.made import alert

STREAM = "deltaloom:alerts"
LATER = 1e9


def notification(name: str = "opened_1", category: str = "other", **changed: Any) -> Notification:
    """Return a notification about an alert with these fields."""
    of = alert(id=name, **changed)
    return Notification(
        id=name,
        alert=of,
        severity=of.severity,
        category=category,
        rule=None,
        route="everything",
        privacy="full",
        text_sha256=None,
        dedup_key=dedup_key_of(of),
    )


def message(
    name: str = "opened_1", *, lanes: tuple[str, ...] = (), number: int = 1, **of: Any
) -> OutgoingMessage:
    """Return a message with one alert, in its part's lane or in `lanes`."""
    made = notification(name, **of)
    expires_at: float = LATER
    return OutgoingMessage(
        made, [EntryRef(STREAM, EntryId(number, 0))], lanes or [made.dedup_key], expires_at
    )
