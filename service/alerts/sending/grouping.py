"""Group similar alerts into digests.

A lane is a deduplication key: the part, or whatever else an alert is about. Messages of one lane are sent in
order.

A window opens with an alert and lasts for a configured time. The first few similar alerts in it are sent as
single messages, without delay. Later ones are held, and sent as one digest when the window ends; a single
held alert is sent as it is.

- If a message of the same lane is held, a new one is held too if both are similar. If not (the whole text of
  a refusal may be more severe than its beginning), both are sent now, in order.
- If a message of the same lane is scheduled or being sent, the new one is scheduled behind it.

So a held message is the earliest unsent one of its lane, and a digest never overtakes an earlier message.

Times are seconds of any one clock, which the caller reads.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from handlers.core.identity import digest
from service.alerts.delivery import Digest
from service.alerts.grouping_key import grouping_key
from service.alerts.sending.message import OutgoingMessage
from service.alerts.severity import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from service.alerts.delivery import Notification
    from service.alerts.destinations.options import Grouping
    from service.alerts.grouping_key import GroupField

EXAMPLES: Final = 3
"""Maximum number of alerts that a digest shows."""


@dataclass(slots=True)
class _Window:
    ends_at: float
    alone: int = 0
    """Number of alerts that were sent as single messages."""
    held: list[OutgoingMessage] = field(default_factory=list)


class Windows:
    """Held messages, by grouping key.

    Args:
        grouping: fields of the grouping key, length of a window, and number of alerts sent without delay.
        is_scheduled: returns whether a lane has a message that is scheduled or under way.
    """

    def __init__(self, grouping: Grouping, is_scheduled: Callable[[str], bool]) -> None:
        self._grouping = grouping
        self._is_scheduled = is_scheduled
        self._windows: dict[str, _Window] = {}
        self._held: dict[str, str] = {}
        """Grouping key of the window that holds messages of a lane, by lane."""

    def place(self, message: OutgoingMessage, now: float) -> list[OutgoingMessage]:
        """Hold a message and return nothing, or return the messages to send now.

        These are the held ones of its lane, which must go first, and then this one.
        """
        key = grouping_key(message.notification, self._grouping.by)
        (lane,) = message.lanes
        held_as = self._held.get(lane)
        if held_as is not None and held_as != key:
            return [*self._release(lane, held_as), message]
        window = self._windows.get(key)
        if window is None or (window.ends_at <= now and not window.held):
            window = self._windows[key] = _Window(now + self._grouping.window)
        if held_as is None and (self._is_scheduled(lane) or window.alone < self._grouping.from_ - 1):
            window.alone += 1
            return [message]
        window.held.append(message)
        self._held[lane] = key
        return []

    def ended(self, now: float) -> list[Sequence[OutgoingMessage]]:
        """Close windows that have ended, and return the held messages of each, in order."""
        over = [key for key, window in self._windows.items() if window.ends_at <= now]
        held = [self._windows.pop(key).held for key in over]
        for messages in held:
            self._forget(messages)
        return [messages for messages in held if messages]

    def empty_fullest(self) -> Sequence[OutgoingMessage]:
        """Return the held messages of the window that holds most, and empty it; the window stays open."""
        fullest = max(self._windows.values(), key=lambda window: len(window.held), default=None)
        if fullest is None:
            return ()
        held, fullest.held = fullest.held, []
        self._forget(held)
        return held

    def next_end(self) -> float | None:
        """Return when the next window ends, or None if none is open."""
        return min((window.ends_at for window in self._windows.values()), default=None)

    def _forget(self, messages: Sequence[OutgoingMessage]) -> None:
        for message in messages:
            for lane in message.lanes:
                self._held.pop(lane, None)

    def _release(self, lane: str, key: str) -> list[OutgoingMessage]:
        """Remove and return the held messages of a lane."""
        window = self._windows[key]
        released = [message for message in window.held if lane in message.lanes]
        window.held = [message for message in window.held if lane not in message.lanes]
        del self._held[lane]
        return released


def make_digest(
    destination: str, messages: Sequence[OutgoingMessage], by: Iterable[GroupField]
) -> OutgoingMessage:
    """Return one digest of several messages; a single message is returned unchanged.

    Args:
        destination: name of the destination; part of the digest's id.
        messages: one or more, in order; each is about one alert.
        by: fields that the messages have in common.
    """
    if len(messages) == 1:
        return messages[0]
    first = messages[0].notification
    return rebuild_digest(digest("digest", f"{destination} {first.id}"), messages, by)


def rebuild_digest(
    digest_id: str, messages: Sequence[OutgoingMessage], by: Iterable[GroupField]
) -> OutgoingMessage:
    """Return a digest of messages under an existing id; see `make_digest`."""
    first = messages[0]
    notifications = [message.notification for message in messages]
    most_severe = min(notifications, key=_rank)
    alerts = [notification.alert for notification in notifications]
    summary = Digest(
        count=len(messages),
        since=min(alert.raised_at for alert in alerts),
        until=max(alert.raised_at for alert in alerts),
        counts=Counter(_label(notification) for notification in notifications).most_common(),
        examples=_examples(notifications),
    )
    return OutgoingMessage(
        replace(
            first.notification,
            id=digest_id,
            severity=most_severe.severity,
            text_sha256=None,
            dedup_key=f"digest/{grouping_key(first.notification, by)}",
            resolves=False,
            digest=summary,
        ),
        refs=[ref for message in messages for ref in message.refs],
        lanes=list(dict.fromkeys(lane for message in messages for lane in message.lanes)),
        expires_at=min(message.expires_at for message in messages),
        size=sum(message.size for message in messages),
    )


def _rank(notification: Notification) -> int:
    return rank(notification.severity)


def _label(notification: Notification) -> str:
    """Return the label under which a digest counts an alert, such as `refusal.opened · gpt-4o`."""
    alert = notification.alert
    names = (alert.type.removeprefix("deltaloom."), alert.model or alert.tenant or alert.provider)
    return " · ".join(name for name in names if name)


def _examples(notifications: Iterable[Notification]) -> list[Notification]:
    """Return the latest notification of each lane, which says the most; the most severe first."""
    last_of_each = {notification.dedup_key: notification for notification in notifications}
    return sorted(last_of_each.values(), key=_rank)[:EXAMPLES]
