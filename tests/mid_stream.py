"""A master that dies in mid-stream, and producers that know which entries have survived.

Replication is asynchronous: entries that a master has acknowledged may be lost with it. So a producer treats
an entry as published when a replica has it too, and otherwise publishes it again. The replica is cut off
shortly before its master dies, so that something is certainly lost: entries, state and outputs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from deltaloom import GROUP
from tests.generated import AWAY
from tests.nodes import wait_until_caught_up
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chaos.generator import EntryToStore
    from deltaloom import StreamNames
    from tests.generated import Generated, Lane
    from tests.nodes import Node
    from tests.workers import WorkerProcess

_AT_ONCE = 24
"""Number of entries that a producer publishes before it asks for replication."""

_CONFIRM_MS = 300
"""Milliseconds that a producer waits for a replica before it publishes again."""

_FREEZES = 30
"""Maximum attempts to freeze a worker with pending entries."""

_HELD_MS = 30_000
"""Maximum milliseconds for which writes to a server are paused."""


class CarefulProducers:
    """Producers, one per lane, that publish entries again unless a replica is known to have them.

    In the middle of its lane, each publishes the same entries again and again until it may go on. So the
    stream does not end before the master dies, however long that takes.
    """

    def __init__(self, generated: Generated, master_of: Callable[[StreamNames], Awaitable[Node]]) -> None:
        self._lanes = generated.lanes
        self._master_of = master_of
        self._may_go_on = False

    @property
    def published(self) -> int:
        """Return the number of entries that a replica has too."""
        return sum(len(lane.confirmed) for lane in self._lanes)

    async def have_begun(self, lane: Lane) -> None:
        """Wait until a fifth of a lane's entries is published."""
        begun = partial(_has_begun, lane)
        await wait_until(begun, 30, message="a producer has begun", interval=0.005)

    def go_on(self) -> None:
        """Let the producers publish the second half of their lanes."""
        self._may_go_on = True

    async def publish(self) -> None:
        """Publish all remaining entries."""
        await asyncio.gather(*(self._publish(lane) for lane in self._lanes))

    async def _publish(self, lane: Lane) -> None:
        while some := lane.take(_AT_ONCE):
            confirmed = partial(self._confirmed, lane, some)
            lane.confirmed += await wait_until(confirmed, 60, message="a replica has it", interval=0.05)

    async def _confirmed(self, lane: Lane, some: list[EntryToStore]) -> list[str]:
        """Publish some entries, and return their ids if a replica has them and the lane may go on.

        WAIT covers only writes of its own connection, so all commands share one.
        """
        try:
            master = await self._master_of(lane.names)
            async with master.client() as client, client.pipeline(transaction=False) as pipeline:
                for entry in some:
                    pipeline.xadd(lane.names.deltas, cast("dict[Any, Any]", entry.fields))
                pipeline.execute_command("WAIT", 1, _CONFIRM_MS)
                *ids, replicas = await pipeline.execute()
        except AWAY:
            return []
        in_the_middle = len(lane.confirmed) >= len(lane.left)
        return ids if replicas and (self._may_go_on or not in_the_middle) else []


def _has_begun(lane: Lane) -> bool:
    return len(lane.confirmed) > len(lane.left) / 4


class Moment(NamedTuple):
    """State of a partition at one moment: numbers of entries, and of open responses."""

    pending: int
    unread: int
    acknowledged: int
    open: int

    @property
    def is_in_mid_stream(self) -> bool:
        """Return whether texts are open while workers still have entries to process."""
        return self.open > 0 and self.pending + self.unread > 0


async def kill_in_mid_stream(master: Node, heir: Node, names: StreamNames, worker: WorkerProcess) -> None:
    """Kill a master while texts are open and workers have entries to process.

    The replica that replaces it has a state in which workers were in the middle of a batch. All later changes
    are lost: at least one acknowledged batch. `worker` is one of several; it is frozen until the master is
    dead, so that its entries stay pending.
    """
    known = await _freeze_in_mid_stream(worker, master, names)
    await wait_until_caught_up(master, [heir])
    heir.hang()
    await master.ask("CLIENT", "KILL", "TYPE", "replica")
    await master.ask("CLIENT", "UNPAUSE")
    await _held(
        master,
        names,
        lambda moment: moment.is_in_mid_stream and moment.acknowledged > known.acknowledged,
    )
    await master.kill()
    worker.thaw()
    heir.go_on()


async def _freeze_in_mid_stream(worker: WorkerProcess, master: Node, names: StreamNames) -> Moment:
    """Freeze a worker with pending entries while texts are open, and pause all writes to the server.

    The server delivers the next entries to a frozen worker too if it was waiting for them. If it was not, it
    may never have any, so it is thawed and frozen again.
    """
    for _ in range(_FREEZES):
        worker.freeze()
        with suppress(AssertionError):
            return await _held(master, names, lambda moment: moment.open > 0 and moment.pending > 0, 1)
        worker.thaw()
    raise AssertionError(f"{master!r} was never in mid-stream")


async def _held(
    master: Node, names: StreamNames, wanted: Callable[[Moment], bool], within: float = 30
) -> Moment:
    """Wait until the partition is in a wanted state, and pause all writes to the server then."""

    async def held() -> Moment | None:
        moment = await _moment_held(master, names)
        if wanted(moment):
            return moment
        await master.ask("CLIENT", "UNPAUSE")
        return None

    moment = await wait_until(held, within, message=f"{master!r} is in mid-stream", interval=0.005)
    return cast("Moment", moment)


async def _moment_held(master: Node, names: StreamNames) -> Moment:
    async with master.client() as client, client.pipeline(transaction=True) as pipeline:
        pipeline.xinfo_groups(names.deltas)
        pipeline.zcard(names.name("open"))
        pipeline.execute_command("CLIENT", "PAUSE", _HELD_MS, "WRITE")
        groups, still_open, _ = await pipeline.execute()
    for group in groups:
        if group["name"] == GROUP:
            pending, read = group["pending"], group["entries-read"] or 0
            return Moment(pending, group["lag"], read - pending, still_open)
    return Moment(0, 0, 0, still_open)  # no worker has read this partition yet
