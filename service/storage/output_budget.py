"""Keep the outputs of a partition within a budget of bytes.

Theory of operation:

1. The budget covers the streams of texts, alerts, deliveries, dead letters and undelivered alerts. Finished
   items are not in it: they expire by themselves.
2. The server estimates the bytes of a stream from some of its nodes, in microseconds.
3. Only entries that every group of their stream has acknowledged are trimmed, the oldest of all streams
   first. So a slow group can keep the outputs above the budget. The caller reports that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from service.keys import Keys
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames

TRIMMED_AT_ONCE = 10_000
"""Maximum entries trimmed from a stream in one call, which takes the server a few milliseconds."""


class OverBudget(NamedTuple):
    """The outputs of a partition when they cannot be trimmed to their budget."""

    stream: str
    """The largest of the streams that have a group; the largest of all if no stream has one."""
    stream_bytes: int
    group: str | None
    """The group of `stream` that is furthest behind, which keeps its entries; None if it has no group."""
    total_bytes: int


class OutputBudget:
    """Keeps the outputs of one partition within `budget` bytes."""

    def __init__(self, client: Redis, names: StreamNames, budget: int) -> None:
        self.bytes = budget
        self._outputs = Keys(names).outputs
        self._script = scripts.Script(client, "budget")

    async def trim(self) -> OverBudget | None:
        """Trim the oldest entries of all outputs until they are within the budget.

        Entries that a group of their stream has yet to acknowledge stay. Return None if the outputs are
        within the budget now. Otherwise return the largest stream that has a group, and its group that is
        furthest behind; if no stream has one, the largest stream.

        Raises:
            StorageUnavailableError: the server is unavailable.
        """
        while True:
            with unavailable_if_away():
                reply = await self._script(keys=self._outputs, args=[self.bytes, TRIMMED_AT_ONCE])
            more, total, number, of_stream, group = reply
            if not more:
                break
        if total <= self.bytes:
            return None
        return OverBudget(self._outputs[number - 1], of_stream, group.decode() or None, total)
