"""Begin the periodic steps of all partitions on one server, each only where it may have something to do.

Theory of operation:

1. There is one timer for all partitions. When a step is due, its round looks at all of them together
   (`service/storage/overview.py`), and begins the step of those that need it.
2. A step runs in a task of its own (`service/periodic.py`), so a partition whose step fails or waits holds up
   no other. The step of a partition is not begun again while it runs.
3. If a look fails because of a wrong setup, the round begins the step of every partition. Each logs its own
   error.
4. In a cluster, servers fail independently and partitions move between them. So each partition has rounds of
   its own there.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from service.periodic import BackgroundStep
from service.ports.storage import SetupError, StorageUnavailableError
from service.storage.overview import Overview
from service.storage.server_clock import ServerClock
from service.storage.state_format import FormatNotes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import NoReturn

    from redis.asyncio import Redis

    from service.apps.partition import Partition
    from service.settings import Settings
    from service.storage.overview import GroupsSeen

_OUTPUTS_SHARE = 0.01
"""Maximum time between two trims of the outputs, as a share of the shortest retention."""
_OUTPUTS_SECONDS = 60.0
"""Maximum seconds between two trims of the outputs."""


class _Round(NamedTuple):
    """A periodic step of all partitions, and the seconds between two of its rounds."""

    interval: float
    go: Callable[[], Awaitable[None]]


class Rounds:
    """The periodic steps of the partitions on one server.

    Args:
        client: client of the server.
        settings: the intervals.
        stream: name of the input stream, or a pattern for those of several partitions, for log lines.
    """

    def __init__(self, client: Redis, settings: Settings, stream: str) -> None:
        self.clock = ServerClock()
        """The clock of the server."""
        self._partitions: list[Partition] = []
        self._begun = asyncio.Event()
        self._overview = Overview(client, self.clock)
        self._notes = FormatNotes(client)
        self._groups: Sequence[GroupsSeen | None] | None = None
        """The groups as seen at this turn of the timer; None if no round has looked yet."""
        self._rounds = [
            _Round(interval, BackgroundStep(name, step, stream).run)
            for name, interval, step in (
                ("sweep", settings.sweep_interval, self._sweep),
                ("reclaim", settings.claim_time / 3, self._reclaim),
                ("renew", settings.claim_time / 3, self._renew),
                ("remove_idle_consumers", settings.claim_time * 4, self._remove_idle_consumers),
                ("trim", settings.trim_interval, self._trim),
                ("trim_outputs", outputs_interval(settings), self._trim_outputs),
            )
        ]
        self._rounds.append(_Round(settings.claim_time, self._check_format))

    def add(self, partition: Partition) -> None:
        """Include a partition, which has begun its steps once by itself."""
        self._partitions.append(partition)
        self._overview.add(partition.keys)
        self._begun.set()

    async def run(self) -> NoReturn:
        """Go the rounds from the first partition on; never return.

        Raises:
            StateFormatError: this worker can no longer read the state of a partition.
        """
        await self._begun.wait()
        clock = asyncio.get_running_loop().time
        due = {each: clock() + each.interval for each in self._rounds}
        while True:
            await asyncio.sleep(min(due.values()) - clock())
            now, self._groups = clock(), None
            for each in [each for each in self._rounds if due[each] <= now]:
                await each.go()
                # Multiples of the interval, so that rounds with equal intervals share their looks.
                due[each] += each.interval
                if due[each] <= now:
                    due[each] = now + each.interval

    async def _sweep(self) -> None:
        for partition in await self._unsettled():
            partition.sweep.begin()

    async def _unsettled(self) -> Iterable[Partition]:
        try:
            return [self._partitions[n] for n in await self._overview.unsettled()]
        except SetupError:
            return self._partitions

    async def _reclaim(self) -> None:
        for partition, seen in await self._with_groups():
            partition.reclaim(seen)

    async def _trim(self) -> None:
        for partition, seen in await self._with_groups():
            partition.trim(seen)

    async def _with_groups(self) -> Iterable[tuple[Partition, GroupsSeen | None]]:
        if self._groups is None:
            try:
                self._groups = await self._overview.groups()
            except SetupError:
                self._groups = [None] * len(self._partitions)
        return zip(self._partitions, self._groups, strict=False)  # a partition may have been added meanwhile

    async def _renew(self) -> None:
        for partition in self._partitions:
            partition.renew()

    async def _remove_idle_consumers(self) -> None:
        for partition in self._partitions:
            partition.remove_idle_consumers.begin()

    async def _trim_outputs(self) -> None:
        for partition in self._partitions:
            partition.trim_outputs.begin()

    async def _check_format(self) -> None:
        """Check that this worker can still read the state of each partition."""
        keys = [partition.keys.format for partition in self._partitions]
        try:
            await self._notes.write(keys)
        except SetupError:
            for key in keys:
                with contextlib.suppress(StorageUnavailableError):
                    await self._notes.write([key])
        except StorageUnavailableError:
            pass  # other rounds log this


def outputs_interval(settings: Settings) -> float:
    """Return the seconds between two trims of the outputs.

    An entry has to stay for its retention, and may stay a hundredth of it longer, but no more than a minute.
    """
    shortest = min([settings.retention, *settings.kind_retentions.values()])
    return max(settings.trim_interval, min(_OUTPUTS_SHARE * shortest, _OUTPUTS_SECONDS))
