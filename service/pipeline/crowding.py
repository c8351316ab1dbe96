"""Leave out events of responses that have too many parts or notes."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from service.keys import BEYOND_LIMIT
from service.pipeline.decode import Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.core.identity import StreamKey
    from service.pipeline.entry_opener import EntryOpener
    from service.pipeline.letters import Letters
    from service.ports.commit import Commit

TOO_MANY_NOTES = Unreadable(
    "oversized",
    "this response has more announced texts, item endings, redactions and checksums than its state may hold; "
    f"further ones are counted as {BEYOND_LIMIT}",
)


class Crowding:
    """Leaves out events of a batch because their response has too many parts or notes.

    Each of these events is counted. The first one of each response in the batch also becomes a dead letter,
    which storage writes only if no earlier batch has caused one for this response.
    """

    def __init__(self, commit: Commit, entries: EntryOpener, letters: Letters, max_parts: int) -> None:
        self._commit = commit
        self._entries = entries
        self._letters = letters
        self.max_parts = max_parts
        """Maximum parts of a response."""

    def leave_out_of_parts(
        self, key: StreamKey, entries: Sequence[int], positions: Sequence[int] | None
    ) -> None:
        """Count events of parts beyond the limit. The caller keeps them out of the commit.

        The earliest of these events also becomes a dead letter in `Commit.crowded`, unless the response has
        one there already.

        Args:
            key: the response.
            entries: index of each event's entry, at least one.
            positions: position of each event in its entry; None if all are 0.
        """
        error = (
            f"this response has more than {self.max_parts} parts; "
            f"events of further parts are counted as {BEYOND_LIMIT}"
        )
        self._leave_out(key, entries, positions, Unreadable("oversized", error))

    def leave_out_of_notes(self, key: StreamKey, entries: Sequence[int], positions: Sequence[int]) -> None:
        """Count events whose notes or item endings are beyond the limit, as `leave_out_of_parts` does.

        Only the error of the dead letter differs: it is that of `TOO_MANY_NOTES`. The two methods
        share the one dead letter of a response: the first call makes it.
        """
        self._leave_out(key, entries, positions, TOO_MANY_NOTES)

    def _leave_out(
        self, key: StreamKey, entries: Sequence[int], positions: Sequence[int] | None, why: Unreadable
    ) -> None:
        self._commit.counts.setdefault(BEYOND_LIMIT, []).extend(entries)
        if key not in self._commit.crowded:
            index, position = min(zip(entries, positions or repeat(0), strict=False))
            letter = self._letters.letter(index, self._entries[index], position, why)
            self._commit.crowded[key] = index, letter
