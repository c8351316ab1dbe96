"""Decide whether a notification closes an incident, for destinations that keep incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.alerts.phases import phase_of

if TYPE_CHECKING:
    from service.alerts.delivery import Notification
    from service.alerts.destinations.options import Resolve


def closes(notification: Notification, resolve: Resolve) -> bool:
    """Return whether a notification closes the incident that an earlier one opened, as `resolve` configures.

    A refusal is an event: it ends seconds after it began, so its incident might close before anybody was
    notified. A spike is a state, and its end should close its incident.
    """
    return notification.resolves and (resolve == "all" or phase_of(notification.alert) == "spike_ended")
