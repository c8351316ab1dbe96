"""Many small byte strings, kept as a few large ones.

A batch keeps the JSON of its entries until it is committed, and hardly ever looks at it again. Kept as it
came, it is what fills the processor's caches: thousands of objects, each in a place of its own.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Bodies:
    """Byte strings, numbered from 0 in the order in which they were added."""

    def __init__(self) -> None:
        self._ends = array("Q")
        """Of each, in the chunk that it is in."""
        self._starts: list[int] = []
        self._joined: list[bytes] = []
        self.size = 0
        """Bytes of all of them."""

    def extend(self, bodies: Sequence[bytes]) -> None:
        """Add some; those that are added together are kept together."""
        self._starts.append(len(self._ends))
        self._joined.append(b"".join(bodies))
        self._ends.extend(accumulate(map(len, bodies)))
        self.size += len(self._joined[-1])

    def __getitem__(self, number: int) -> bytes:
        chunk = bisect_right(self._starts, number) - 1
        begin = self._ends[number - 1] if number > self._starts[chunk] else 0
        return self._joined[chunk][begin : self._ends[number]]
