"""Similar alerts become one message.

A window begins with an alert and lasts for some time. The first few similar alerts of a window go out one
by one, at once. What comes after them is held, and goes out as one digest when the window ends; a single one
goes out as it is.

- What follows something of the same part that is held is held with it, or takes it along: if it is not
  similar (the whole text of a refusal may be graver than its beginning), both go out now, in their order.
- What follows something of the same part that is on its way goes out too, behind it.

So whatever is held is the first of its part that has not gone out, and a digest may go before all that comes.

Times are seconds of any one clock, which the caller reads.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from handlers.core.identity import digest
from service.alerts.delivery import Digest
from service.alerts.likeness import likeness
from service.alerts.sending.message import Message
from service.alerts.severity import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from service.alerts.delivery import Notification
    from service.alerts.destinations.options import GroupField, Grouping

EXAMPLES: Final = 3
"""Alerts that a digest shows."""


@dataclass(slots=True)
class _Window:
    ends_at: float
    alone: int = 0
    """Alerts that went out one by one."""
    held: list[Message] = field(default_factory=list)


class Windows:
    """What is held, by likeness.

    Args:
        grouping: what is similar, for how long, and how many go out one by one.
        on_its_way: whether something of a part is going out.
    """

    def __init__(self, grouping: Grouping, on_its_way: Callable[[str], bool]) -> None:
        self._grouping = grouping
        self._on_its_way = on_its_way
        self._windows: dict[str, _Window] = {}
        self._held: dict[str, str] = {}
        """Where what is held of a part is."""

    def place(self, message: Message, now: float) -> list[Message]:
        """Hold a message, or let it go; returns what goes out now, in this order."""
        alike = likeness(message.notification, self._grouping.by)
        (lane,) = message.lanes
        held_as = self._held.get(lane)
        if held_as is not None and held_as != alike:
            return [*self._release(lane, held_as), message]
        window = self._windows.get(alike)
        if window is None or (window.ends_at <= now and not window.held):
            window = self._windows[alike] = _Window(now + self._grouping.window)
        if held_as is None and (self._on_its_way(lane) or window.alone < self._grouping.from_ - 1):
            window.alone += 1
            return [message]
        window.held.append(message)
        self._held[lane] = alike
        return []

    def ended(self, now: float) -> list[Sequence[Message]]:
        """What was held in windows that are over: of each, similar messages in their order."""
        over = [alike for alike, window in self._windows.items() if window.ends_at <= now]
        held = [self._windows.pop(alike).held for alike in over]
        for messages in held:
            self._let_go(messages)
        return [messages for messages in held if messages]

    def end_fullest(self) -> Sequence[Message]:
        """What is held in the window that holds most; the window goes on."""
        fullest = max(self._windows.values(), key=lambda window: len(window.held), default=None)
        if fullest is None:
            return ()
        held, fullest.held = fullest.held, []
        self._let_go(held)
        return held

    def next_end(self) -> float | None:
        """When the next window ends; None: none is open."""
        return min((window.ends_at for window in self._windows.values()), default=None)

    def _let_go(self, messages: Sequence[Message]) -> None:
        for message in messages:
            for lane in message.lanes:
                self._held.pop(lane, None)

    def _release(self, lane: str, alike: str) -> list[Message]:
        """Take out what is held of a part."""
        window = self._windows[alike]
        released = [message for message in window.held if lane in message.lanes]
        window.held = [message for message in window.held if lane not in message.lanes]
        del self._held[lane]
        return released


def digest_of(destination: str, messages: Sequence[Message], by: Iterable[GroupField]) -> Message:
    """Several messages as one; a single one as it is.

    Args:
        destination: where they go.
        messages: in their order, one or more, of one alert each.
        by: what they have in common.
    """
    if len(messages) == 1:
        return messages[0]
    first = messages[0].notification
    return digest_called(digest("digest", f"{destination} {first.id}"), messages, by)


def digest_called(digest_id: str, messages: Sequence[Message], by: Iterable[GroupField]) -> Message:
    """A digest with an id that it has already."""
    first = messages[0]
    notifications = [message.notification for message in messages]
    gravest = min(notifications, key=_gravity)
    alerts = [notification.alert for notification in notifications]
    summary = Digest(
        count=len(messages),
        since=min(alert.raised_at for alert in alerts),
        until=max(alert.raised_at for alert in alerts),
        counts=Counter(_what(notification) for notification in notifications).most_common(),
        examples=_examples(notifications),
    )
    return Message(
        replace(
            first.notification,
            id=digest_id,
            severity=gravest.severity,
            text_sha256=None,
            group=f"digest/{likeness(first.notification, by)}",
            resolves=False,
            digest=summary,
        ),
        places=[place for message in messages for place in message.places],
        lanes=list(dict.fromkeys(lane for message in messages for lane in message.lanes)),
        expires_at=min(message.expires_at for message in messages),
        size=sum(message.size for message in messages),
    )


def _gravity(notification: Notification) -> int:
    return rank(notification.severity)


def _what(notification: Notification) -> str:
    """What a digest counts an alert as, such as `refusal.opened · gpt-4o`."""
    alert = notification.alert
    names = (alert.type.removeprefix("deltaloom."), alert.model or alert.tenant or alert.provider)
    return " · ".join(name for name in names if name)


def _examples(notifications: Iterable[Notification]) -> list[Notification]:
    """The gravest, each of another part: of one that has ended, its end, which says all."""
    last_of_each = {notification.group: notification for notification in notifications}
    return sorted(last_of_each.values(), key=_gravity)[:EXAMPLES]
