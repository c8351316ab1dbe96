"""Store many small byte strings as a few large ones.

A batch keeps the JSON of its entries until it is committed, and hardly ever reads it again. As thousands of
separate objects it would displace other data from the processor's caches.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Bodies:
    """A sequence of byte strings, stored in chunks and numbered from 0 in the order of addition."""

    def __init__(self) -> None:
        self._ends = array("Q")
        """End offset of each string in its chunk."""
        self._starts: list[int] = []
        """Number of the first string of each chunk."""
        self._joined: list[bytes] = []
        self.size = 0
        """Bytes of all strings."""

    def extend(self, bodies: Sequence[bytes]) -> None:
        """Add byte strings as one chunk."""
        self._starts.append(len(self._ends))
        self._joined.append(b"".join(bodies))
        self._ends.extend(accumulate(map(len, bodies)))
        self.size += len(self._joined[-1])

    def __getitem__(self, number: int) -> bytes:
        chunk = bisect_right(self._starts, number) - 1
        begin = self._ends[number - 1] if number > self._starts[chunk] else 0
        return self._joined[chunk][begin : self._ends[number]]
