"""The figures of a whole deployment, which one process of its group measures for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class GroupFigures(NamedTuple):
    """The figures of all partitions together: the sum of each number, the highest of each age."""

    lag: int
    """Number of entries that no worker has read."""
    pending: int
    """Number of entries that were read and not acknowledged."""
    oldest_seconds: float
    """Age in seconds of the oldest entry that is unread or pending; 0 without one."""
    oldest_pending_seconds: float
    """Age in seconds of the oldest pending entry; 0 without one."""
    low_water_seconds: float
    """Age in seconds of the low-water mark; 0 if no entry is unread or pending."""
    open: int
    """Number of open responses."""
    waiting: int
    """Number of responses with a closed text that waits for the low-water mark."""
    memory_ratio: float | None
    """Used share of the server's memory, of the fullest server; None if it is not known."""
    counts: Mapping[str, int]
    """The counts that are stored with the state, by name."""


class BacklogFigures(NamedTuple):
    """The entries of all partitions that a group has still to handle, such as alerts for a destination."""

    alerts: int
    """Number of entries, pending or unread."""
    oldest_ms: int | None
    """Time of the oldest entry in ms since the epoch; None if there is none."""

    def oldest_seconds(self, now: float) -> float:
        """Return the age of the oldest entry at `now`, both in seconds; 0 if there is no entry."""
        return 0.0 if self.oldest_ms is None else max(0.0, now - self.oldest_ms / 1000)
