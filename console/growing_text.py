"""The newest words of a text that grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from handlers.core.assembly import assemble
from handlers.core.text import repair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.core.assembly import StoredFragment

KEPT: Final = 16_000
"""Characters that are kept of a text, at least its newest ones. Twice as many are cut down to this number."""

_KEPT_FRAGMENTS: Final = 4096
"""Fragments that are kept. A fragment that comes late to those before them is lost: the worker has it."""

_NO_FRAGMENT: Final = -1


class GrowingText:
    """The set of the newest fragments of a text.

    Nearly every fragment follows the one before, and is appended. Any other order is assembled anew.
    """

    __slots__ = ("_closed", "_dropped", "_fragments", "_last", "_raw")

    def __init__(self) -> None:
        self._fragments: list[StoredFragment] = []
        self._raw = ""
        self._dropped = 0
        """Characters before those that are kept."""
        self._last: int | None = _NO_FRAGMENT
        """Highest sequence number; None if a fragment has none."""
        self._closed = False

    @property
    def length(self) -> int:
        """Characters of the text so far."""
        return self._dropped + len(self._raw)

    def is_within(self, characters: int) -> bool:
        """Return whether the last characters are the whole text."""
        return not self._dropped and len(self._raw) <= characters

    def end(self, characters: int) -> str:
        """Return the last characters of the text."""
        return repair(self._raw[-characters:])

    def add(self, fragments: Sequence[StoredFragment]) -> None:
        """Add fragments, unless the whole text is known."""
        if self._closed:
            return
        in_order = True
        for fragment in fragments:
            in_order &= self._follows(fragment)
        self._fragments += fragments
        added = "".join([each.delta for each in fragments])
        # Assembling has replaced half a pair of surrogates at the end. Its other half makes it whole.
        completes_pair = "\udc00" <= added[:1] <= "\udfff" and self._raw.endswith("\ufffd")
        if in_order and not completes_pair:
            self._raw += added
        else:
            self._raw = assemble(self._fragments).text
        self._drop_old()

    def close(self, text: str) -> None:
        """Replace the fragments by the whole text."""
        self._fragments, self._closed = [], True
        self._raw, self._dropped = text[-KEPT:], max(0, len(text) - KEPT)

    def _follows(self, fragment: StoredFragment) -> bool:
        """Return whether a fragment comes after all others, and note its number."""
        number, last = fragment.sequence_number, self._last
        if number is None or last is None:
            follows = number is None and last in {None, _NO_FRAGMENT}
            self._last = None
            return follows
        self._last = max(number, last)
        return number > last

    def _drop_old(self) -> None:
        """Drop the oldest fragments and characters if there are too many."""
        if len(self._fragments) > _KEPT_FRAGMENTS or len(self._raw) > 2 * KEPT:
            self._fragments = self._fragments[-_KEPT_FRAGMENTS // 2 :]
            rest = assemble(self._fragments).text
            if len(rest) > KEPT:  # few fragments, but long ones
                rest = rest[-KEPT:]
                self._fragments = self._fragments[-1:]
            self._dropped += max(0, len(self._raw) - len(rest))
            self._raw = rest
