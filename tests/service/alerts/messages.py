"""Messages on their way, for the tests of what puts them in order."""

from __future__ import annotations

from typing import Any

from handlers.core.identity import EntryId
from service.alerts.delivery import Notification
from service.alerts.phases import group_of
from service.alerts.sending.message import Message
from service.ports.outbox import Place
from tests.service.alerts.made import alert

STREAM = "deltaloom:alerts"
LATER = 1e9


def notification(name: str = "opened_1", category: str = "other", **changed: Any) -> Notification:
    """One, of an alert with these fields."""
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
        group=group_of(of),
    )


def message(name: str = "opened_1", *, lanes: tuple[str, ...] = (), number: int = 1, **of: Any) -> Message:
    """One of one alert, in the lane of its part, or in these."""
    made = notification(name, **of)
    expires_at: float = LATER
    return Message(made, [Place(STREAM, EntryId(number, 0))], lanes or [made.group], expires_at)
