"""Choose the next message to send.

- Messages of one lane are sent in the order in which they were added, and one is under way at a time: the
  next waits until the one before is done, delivered or given up.
- Among lanes, the most severe message that is due goes first; among equally severe ones, the one due
  earliest. A message inherits the severity of the most severe message behind it.
- A message may be in several lanes: it is sent when it is the first in each. Messages cannot block each other
  forever, since the message that was added first is the first in all of its lanes.

Times are seconds of any one clock, which the caller reads.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from service.alerts import severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.alerts.sending.message import OutgoingMessage


@dataclass(slots=True, eq=False)
class _Slot:
    """A slot for a message that is the first in its lanes and not under way."""

    message: OutgoingMessage
    at: float
    """Time at which the message is due."""
    number: int
    """Serial number, which orders messages due at the same time."""
    rank: int
    """Priority; 0 goes first."""
    used: bool = False


_Heap = list[tuple[float, int, _Slot]]
"""Slots ordered by due time and number. Used-up ones stay until they reach the top."""


class Schedule:
    """Messages that are waiting or under way."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[OutgoingMessage]] = {}
        self._slots: dict[OutgoingMessage, _Slot] = {}
        self._heaps: tuple[_Heap, ...] = tuple([] for _ in severity.MOST_SEVERE_FIRST)
        """Heaps by rank; a slot that has become more severe is in two of them."""
        self._numbers = count()

    def is_scheduled(self, lane: str) -> bool:
        """Return whether a lane has a message, waiting or under way."""
        return lane in self._lanes

    def add(self, message: OutgoingMessage) -> None:
        """Append a message to its lanes."""
        rank = _rank(message)
        for lane in message.lanes:
            queue = self._lanes.setdefault(lane, deque())
            queue.append(message)
            slot = self._slots.get(queue[0])
            if slot is not None and rank < slot.rank:
                slot.rank = rank
                self._push(slot)
        self._put_if_first(message)

    def pop(self, now: float, *, critical_only: bool = False) -> OutgoingMessage | None:
        """Remove and return the next due message, or None; it is under way until `put_back` or `done`."""
        for heap in self._heaps[:1] if critical_only else self._heaps:
            slot = _first(heap)
            if slot is not None and slot.at <= now:
                return self._take(slot)
        return None

    def next_at(self, *, critical_only: bool = False) -> float | None:
        """Return when the next message is due; None if none waits."""
        heaps = self._heaps[:1] if critical_only else self._heaps
        firsts = [slot for slot in map(_first, heaps) if slot is not None]
        return min([slot.at for slot in firsts], default=None)

    def put_back(self, message: OutgoingMessage, at: float) -> None:
        """Put a message that was under way back; it is due at `at`."""
        self._put(message, at)

    def _put(self, message: OutgoingMessage, at: float) -> None:
        """Add a slot for a message that is the first in all of its lanes."""
        rank = min(_rank(each) for lane in message.lanes for each in self._lanes[lane])
        self._slots[message] = slot = _Slot(message, at, next(self._numbers), rank)
        self._push(slot)

    def done(self, message: OutgoingMessage) -> None:
        """Remove a message that was under way; the next ones of its lanes become ready."""
        followers: list[OutgoingMessage] = []
        for lane in message.lanes:
            queue = self._lanes[lane]
            queue.popleft()
            if not queue:
                del self._lanes[lane]
            elif queue[0] not in followers:
                followers.append(queue[0])
        for follower in followers:
            self._put_if_first(follower)

    def hasten(self, now: float) -> None:
        """Make all waiting messages due now, in their present order."""
        for slot in _by_due_time(slot for slot in self._slots.values() if slot.at > now):
            self._put(self._take(slot), now)

    def pop_expired(self, now: float, at_most: int) -> list[OutgoingMessage]:
        """Return up to `at_most` waiting messages that have expired; they are under way until `done`."""
        expired = _by_due_time(slot for slot in self._slots.values() if slot.message.expires_at <= now)
        return list(map(self._take, expired[:at_most]))

    def _push(self, slot: _Slot) -> None:
        heapq.heappush(self._heaps[slot.rank], (slot.at, slot.number, slot))

    def _take(self, slot: _Slot) -> OutgoingMessage:
        slot.used = True
        del self._slots[slot.message]
        return slot.message

    def _put_if_first(self, message: OutgoingMessage) -> None:
        if all(self._lanes[lane][0] is message for lane in message.lanes):
            self._put(message, 0.0)


def _rank(message: OutgoingMessage) -> int:
    return severity.rank(message.notification.severity)


def _by_due_time(slots: Iterable[_Slot]) -> list[_Slot]:
    return sorted(slots, key=lambda slot: (slot.at, slot.number))


def _first(heap: _Heap) -> _Slot | None:
    """Return the first slot of a heap that is not used up, or None."""
    while heap and heap[0][2].used:
        heapq.heappop(heap)
    return heap[0][2] if heap else None
