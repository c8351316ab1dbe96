"""Which message goes next.

- Messages of one lane go in the order in which they were added, and one is under way at a time: the next
  waits until the one before is done, delivered or given up.
- Of different lanes, the gravest goes of those that may; of equally grave ones, the one that may for longest.
  A message is as grave as the gravest one of its lanes: who waits behind it waits for it.
- A message may be in several lanes: it goes when it is the first in each. Of equally grave ones none waits
  for ever, since the message that was added first is the first in all of its lanes.

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

    from service.alerts.sending.message import Message


@dataclass(slots=True, eq=False)
class _Turn:
    """Of a message that is the first in its lanes and not under way."""

    message: Message
    at: float
    """When it may go."""
    number: int
    """Which of two goes first that may go at the same time."""
    rank: int
    """How grave it is: 0 goes first."""
    over: bool = False


_Heap = list[tuple[float, int, _Turn]]
"""Turns by when they may go. Those that are over stay until they come up."""


class Schedule:
    """Messages that are not done."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Message]] = {}
        self._turns: dict[Message, _Turn] = {}
        self._heaps: tuple[_Heap, ...] = tuple([] for _ in severity.GRAVEST_FIRST)
        """By rank; a turn that has become graver is in two of them."""
        self._numbers = count()

    def busy(self, lane: str) -> bool:
        """Whether there is a message in a lane."""
        return lane in self._lanes

    def add(self, message: Message) -> None:
        """Add one to the end of its lanes."""
        rank = _rank(message)
        for lane in message.lanes:
            queue = self._lanes.setdefault(lane, deque())
            queue.append(message)
            turn = self._turns.get(queue[0])
            if turn is not None and rank < turn.rank:
                turn.rank = rank
                self._push(turn)
        self._wait_if_first(message)

    def take(self, now: float, *, critical_only: bool = False) -> Message | None:
        """The next one that may go; it is under way until `again` or `done`."""
        for heap in self._heaps[:1] if critical_only else self._heaps:
            turn = _first(heap)
            if turn is not None and turn.at <= now:
                return self._taken(turn)
        return None

    def next_at(self, *, critical_only: bool = False) -> float | None:
        """When the next one may go; None: none waits."""
        heaps = self._heaps[:1] if critical_only else self._heaps
        firsts = [turn for turn in map(_first, heaps) if turn is not None]
        return min([turn.at for turn in firsts], default=None)

    def again(self, message: Message, at: float) -> None:
        """It was under way, and may go again then."""
        rank = min(_rank(each) for lane in message.lanes for each in self._lanes[lane])
        self._turns[message] = turn = _Turn(message, at, next(self._numbers), rank)
        self._push(turn)

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
        for turn in _in_turn(turn for turn in self._turns.values() if turn.at > now):
            self.again(self._taken(turn), now)

    def take_expired(self, now: float, at_most: int) -> list[Message]:
        """Some that waited for too long; they are under way until `done`."""
        expired = _in_turn(turn for turn in self._turns.values() if turn.message.expires_at <= now)
        return list(map(self._taken, expired[:at_most]))

    def _push(self, turn: _Turn) -> None:
        heapq.heappush(self._heaps[turn.rank], (turn.at, turn.number, turn))

    def _taken(self, turn: _Turn) -> Message:
        turn.over = True
        del self._turns[turn.message]
        return turn.message

    def _wait_if_first(self, message: Message) -> None:
        if all(self._lanes[lane][0] is message for lane in message.lanes):
            self.again(message, 0.0)


def _rank(message: Message) -> int:
    return severity.rank(message.notification.severity)


def _in_turn(turns: Iterable[_Turn]) -> list[_Turn]:
    return sorted(turns, key=lambda turn: (turn.at, turn.number))


def _first(heap: _Heap) -> _Turn | None:
    """The first of a heap's turns that is not over."""
    while heap and heap[0][2].over:
        heapq.heappop(heap)
    return heap[0][2] if heap else None
