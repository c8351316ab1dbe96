"""What notifications have in common: the key by which similar ones are told from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.alerts.phases import phase_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from service.alerts.delivery import Notification
    from service.alerts.destinations.options import GroupField

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


def likeness(notification: Notification, by: Iterable[GroupField]) -> str:
    """A key that similar notifications share, like `category=self-harm,model=gpt-4o`.

    Args:
        notification: any.
        by: what has to be the same, in the order of the key. A value that is missing is like no other.
    """
    return ",".join(f"{name}={_value(_FIELDS[name](notification))}" for name in by)


def _value(value: str | None) -> str:
    """Values cannot run into each other, nor into what stands for none."""
    return "-" if value is None else repr(value)
