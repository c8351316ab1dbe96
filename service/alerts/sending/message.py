"""A message on its way to a destination: a notification, and the alerts that are settled with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.alerts.delivery import Notification
    from service.ports.outbox import Place


@dataclass(slots=True, eq=False)
class Message:
    """One message. Times are the event loop's, in seconds."""

    notification: Notification
    places: Sequence[Place]
    """The alerts that it tells of."""
    lanes: Sequence[str]
    """The parts that it tells of: what concerns one of them goes in order, one after the other."""
    expires_at: float
    """When it is given up."""
    size: int = 0
    """Bytes of the alerts, as they are stored."""
    attempts: int = 0
    kept: bool = False
    """Of a digest: whether the outbox keeps which alerts are in it."""
