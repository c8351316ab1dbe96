"""Which message goes next.

- Messages of one lane go in the order in which they were added, and one is under way at a time: the next
  waits until the one before is done, delivered or given up.
- Of different lanes, the one goes first that may go for longest.
- A message may be in several lanes: it goes when it is the first in each. None waits for ever, since the
  message that was added first is the first in all of its lanes.

Times are seconds of any one clock, which the caller reads.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.alerts.message import Message


class Schedule:
    """Messages that are not done."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Message]] = {}
        self._waiting: list[tuple[float, int, Message]] = []
        """A heap of those that are first in their lanes and not under way, by when they may go."""
        self._numbers = count()

    def busy(self, lane: str) -> bool:
        """Whether there is a message in a lane."""
        return lane in self._lanes

    def add(self, message: Message) -> None:
        """Add one to the end of its lanes."""
        for lane in message.lanes:
            self._lanes.setdefault(lane, deque()).append(message)
        self._wait_if_first(message)

    def take(self, now: float) -> Message | None:
        """The next one that may go; it is under way until `again` or `done`."""
        if self._waiting and self._waiting[0][0] <= now:
            return heapq.heappop(self._waiting)[2]
        return None

    def next_at(self) -> float | None:
        """When the next one may go; None: none waits."""
        return self._waiting[0][0] if self._waiting else None

    def again(self, message: Message, at: float) -> None:
        """It was under way, and may go again then."""
        heapq.heappush(self._waiting, (at, next(self._numbers), message))

    def done(self, message: Message) -> None:
        """It was under way, and is no more: the next ones of its lanes may go."""
        followers: list[Message] = []
        for lane in message.lanes:
            queue = self._lanes[lane]
            queue.popleft()
            if not queue:
                del self._lanes[lane]
            elif queue[0] not in followers:
                followers.append(queue[0])
        for follower in followers:
            self._wait_if_first(follower)

    def hasten(self, now: float) -> None:
        """Let all that wait go now, in the order in which they would have."""
        later = sorted(each for each in self._waiting if each[0] > now)
        self._waiting = [each for each in self._waiting if each[0] <= now]
        heapq.heapify(self._waiting)
        for _, _, message in later:
            self.again(message, now)

    def take_expired(self, now: float, at_most: int) -> list[Message]:
        """Some that waited for too long; they are under way until `done`."""
        expired = sorted(each for each in self._waiting if each[2].expires_at <= now)[:at_most]
        if expired:
            numbers = {number for _, number, _ in expired}
            self._waiting = [each for each in self._waiting if each[1] not in numbers]
            heapq.heapify(self._waiting)
        return [message for _, _, message in expired]

    def _wait_if_first(self, message: Message) -> None:
        if all(self._lanes[lane][0] is message for lane in message.lanes):
            self.again(message, 0.0)
