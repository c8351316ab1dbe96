"""Compute the key by which similar notifications are grouped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from service.alerts.phases import phase_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from service.alerts.delivery import Notification

GroupField = Literal[
    "category",
    "severity",
    "rule",
    "route",
    "phase",
    "kind",
    "tenant",
    "model",
    "provider",
    "status",
    "reason",
    "reason_class",
]

_FIELDS: Mapping[GroupField, Callable[[Notification], str | None]] = {
    "category": lambda notification: notification.category,
    "severity": lambda notification: notification.severity,
    "rule": lambda notification: notification.rule,
    "route": lambda notification: notification.route,
    "phase": lambda notification: phase_of(notification.alert) or notification.alert.type,
    "kind": lambda notification: notification.alert.kind,
    "tenant": lambda notification: notification.alert.tenant,
    "model": lambda notification: notification.alert.model,
    "provider": lambda notification: notification.alert.provider,
    "status": lambda notification: notification.alert.status,
    "reason": lambda notification: notification.alert.reason,
    "reason_class": lambda notification: notification.alert.reason_class,
}


def grouping_key(notification: Notification, by: Iterable[GroupField]) -> str:
    """Return the grouping key of a notification, such as `category='self-harm',model='gpt-4o'`.

    Args:
        notification: the notification to group.
        by: the fields that must be equal, in the order of the key. Two missing values are equal to each other
            and differ from every present value.
    """
    return ",".join(f"{name}={_value(_FIELDS[name](notification))}" for name in by)


def _value(value: str | None) -> str:
    """Return a value in quotes, and `-` for None, so that different values never give the same key."""
    return "-" if value is None else repr(value)
