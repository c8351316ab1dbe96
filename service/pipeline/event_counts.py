"""Count events of a batch by name: event types, and fields and values that were left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.core.effects import TRUNCATED
from service.keys import LEFT_OUT, OTHER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.core.identity import StreamKey
    from service.ports.commit import Commit

_MAX_NAMES = 1000
"""Maximum names of counts in a batch. A new name may evict another one, which costs server time."""

_TYPE_LENGTH = 100
"""Maximum characters of an unknown event type in the name of its count."""


class EventCounts:
    """The counts of a batch's commit. Events are given by their entries' indexes, in ascending order."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit

    def count_type(self, event_type: str, key: StreamKey | None, entries: Sequence[int]) -> None:
        """Count events of one type. The latest one counts as activity of the response `key`, unless None."""
        name = event_type[:_TYPE_LENGTH].encode("utf-8", "replace").decode()
        self._count(f"type:{name}", f"type:{OTHER}", entries)
        if key is not None:
            ms = self._commit.milliseconds[entries[-1]]
            self._commit.touched[key] = max(ms, self._commit.touched.get(key, ms))

    def count_left_out(self, event_type: str, field: str, entries: Sequence[int]) -> None:
        """Count an invalid field that was left out of one event in each of these entries."""
        self._count(f"{LEFT_OUT}{event_type}:{field}", f"{LEFT_OUT}{OTHER}", entries)

    def count_truncated(self, names: Iterable[str], entries: Sequence[int]) -> None:
        """Count context values of these entries that were left out because they were too long."""
        for name in names:
            self._commit.counts.setdefault(f"{TRUNCATED}{name}", []).extend(entries)

    def _count(self, name: str, other: str, entries: Sequence[int]) -> None:
        """Count events under `name`, or under `other` if `name` is new and the batch has too many names."""
        counts = self._commit.counts
        if name not in counts and len(counts) >= _MAX_NAMES:
            name = other
        counts.setdefault(name, []).extend(entries)
