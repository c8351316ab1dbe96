"""When a notification closes what another one opened at a destination that keeps incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.alerts.phases import phase_of

if TYPE_CHECKING:
    from service.alerts.delivery import Notification
    from service.alerts.destinations.options import Resolve


def closes(notification: Notification, resolve: Resolve) -> bool:
    """Whether it does, as the destination's table has it.

    A refusal is an event: it ends seconds after it began, and an incident that closed with it would often be
    closed before anybody was told. A spike is a state, and its end is worth closing for.
    """
    return notification.resolves and (resolve == "all" or phase_of(notification.alert) == "spike_ended")
