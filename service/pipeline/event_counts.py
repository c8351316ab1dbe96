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
"""Maximum names of counts in a batch, because a name that is new to storage may evict another one there.

Events under further names are counted together, as `OTHER`. Names of truncated values have no limit.
"""

_TYPE_LENGTH = 100
"""Maximum characters of an event type in the name of its count; the rest is cut off."""


class EventCounts:
    """Adds counts of events to a batch's commit.

    A call counts one event for each entry index. The indexes are in ascending order; that of an entry with
    several of the events is repeated.
    """

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
        """Count values that were left out because they were too long: each name once for each entry index."""
        for name in names:
            self._commit.counts.setdefault(f"{TRUNCATED}{name}", []).extend(entries)

    def _count(self, name: str, other: str, entries: Sequence[int]) -> None:
        """Count events under `name`, or under `other` if `name` is one too many (see `_MAX_NAMES`)."""
        counts = self._commit.counts
        if name not in counts and len(counts) >= _MAX_NAMES:
            name = other
        counts.setdefault(name, []).extend(entries)
