"""Find out whether a process makes progress: its event loop turns, and its steps move.

A process that waits for Redis makes progress: to restart it would not bring Redis back.
"""

from __future__ import annotations

from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from service.under_way import Step

STUCK_AFTER: Final = 3
"""A step is stuck after this many times its limit."""

LIMITS: Final[Mapping[str, float]] = MappingProxyType(
    {"loop": 5.0, "read": 10.0, "batch": 20.0, "round": 20.0, "call": 20.0}
)
"""Seconds that each may take.

The loop turns every second. A read waits two seconds for entries, and five for a server that hangs. Batches
and rounds move with every call on the server; a call that redis-py tries again takes up to 22 seconds on one
that hangs.
"""

_CALLED: Final = {"batch": "a batch of", "read": "a read of", "round": "the periodic task"}


class Liveness:
    """The progress of a process.

    Args:
        steps: function that returns the steps under way (`service.under_way.steps`).
        now: monotonic time of the process's start.
    """

    def __init__(self, steps: Callable[[], Collection[Step]], now: float | None = None) -> None:
        self._steps = steps
        self._turned_at = monotonic() if now is None else now
        self.worst_lag = 0.0
        """Longest time in seconds that the loop was late for a turn."""

    def turn(self, now: float, planned: float = 1.0) -> float:
        """Record a turn of the event loop, which was planned `planned` seconds after the last one.

        Return the seconds by which it is late.
        """
        late = now - self._turned_at - planned
        self.worst_lag = max(self.worst_lag, late)
        self._turned_at = now
        return late

    def stuck(self, now: float) -> list[str]:
        """Return a reason for each thing that is stuck; empty if the process makes progress."""
        return [
            f"{what} for {seconds:.0f} s, allowed are {STUCK_AFTER * LIMITS[kind]:.0f}"
            for kind, what, seconds in self._ages(now)
            if seconds > STUCK_AFTER * LIMITS[kind]
        ]

    def waiting(self, now: float) -> list[str]:
        """Return a reason for each step that has waited for an unavailable server for too long.

        Such a step is not stuck, but gets no work done, although other steps of the process may succeed.
        """
        return [
            f"{_CALLED[step.kind]} {step.name} has waited for Redis for {now - step.moved_at:.0f} s"
            for step in tuple(self._steps())
            if step.waits and now - step.moved_at > STUCK_AFTER * LIMITS[step.kind]
        ]

    def in_hand(self, now: float) -> list[dict[str, object]]:
        """Return the steps under way with their seconds since they moved, oldest first, for people."""
        found: list[dict[str, object]] = [
            {
                "step": step.kind,
                "of": step.name,
                "seconds": round(now - step.moved_at, 3),
                "waits_for_redis": step.waits,
            }
            for step in sorted(self._steps(), key=lambda step: step.moved_at)
        ]
        return found

    def _ages(self, now: float) -> Iterator[tuple[str, str, float]]:
        """Yield the kind, the phrase and the seconds of all that may be stuck."""
        yield "loop", "the event loop has not turned", now - self._turned_at
        for step in tuple(self._steps()):
            what = f"{_CALLED[step.kind]} {step.name}"
            if not step.waits:
                yield step.kind, f"{what} has not moved", now - step.moved_at
            elif step.call_since is not None:
                yield "call", f"a call of {what} has not ended", now - step.call_since
