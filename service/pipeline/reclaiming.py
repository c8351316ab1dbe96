"""What other workers left behind: take it over, in a way that no single entry can take others down with it.

Ownership and delivery are two steps. Entries are taken over many at a time, which counts as nothing; a
delivery is counted when an entry is really given to the handlers. What was delivered once before goes as a
batch: its worker was probably just stopped. What was delivered more often goes one by one, so that an
entry that kills its reader is alone when it does, and its neighbours never come near the limit with it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from service import logs
from service.pipeline.decode import Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.patience import Patience
    from service.pipeline.worker import Worker
    from service.ports.storage import Group
    from service.settings import Settings

_BEGINNING = "0-0"
_GONE_AFTER = 20
"""Claim times after which a consumer that was not heard of is gone."""


class Reclaimer:
    """Takes over entries of workers that are gone, or stuck."""

    def __init__(self, group: Group, worker: Worker, settings: Settings, patience: Patience) -> None:
        self._group = group
        self._worker = worker
        self._settings = settings
        self._patience = patience
        self._cursor = _BEGINNING

    async def inherit(self) -> None:
        """Go on at once with what this worker's former selves left: the same name, or a dead process's."""
        own = self._settings.consumer
        for name in await self._patience.until_done(self._group.consumers):
            if name == own or is_gone(name, own):
                while deliveries := await self._patience.until_done(self._group.inherit, name):
                    await self._take(deliveries, whose=name)

    async def reclaim(self) -> None:
        """Take over what nobody has acknowledged for the claim time."""
        idle_ms = round(self._settings.claim_time * 1000)
        while True:
            claim = await self._group.claim(idle_ms, self._cursor)
            self._cursor = claim.cursor
            if claim.lost:
                logs.logger().error(
                    "entries lost: they were trimmed from the input before they were handled",
                    entries=len(claim.lost),
                    first_entry=claim.lost[0],
                    last_entry=claim.lost[-1],
                )
            # A worker that was only waiting for Redis may claim what it has in hand itself.
            in_hand = self._worker.in_hand
            await self._take(
                {entry: n for entry, n in claim.deliveries.items() if entry.encode() not in in_hand}
            )
            if claim.cursor == _BEGINNING:
                return

    async def keep(self) -> None:
        """Hold on to what the worker works on, lest others take a live worker for a dead one."""
        if in_hand := self._worker.in_hand:
            await self._group.keep(in_hand)

    async def retire(self) -> None:
        """Remove consumers that are gone and hold nothing."""
        idle_ms = round(self._settings.claim_time * _GONE_AFTER * 1000)
        removed = await self._group.retire(idle_ms)
        if removed:
            logs.logger().info("consumers removed", consumers=removed)

    async def _take(self, deliveries: Mapping[str, int], whose: str | None = None) -> None:
        if deliveries:
            # Held from the first to the last: those at the end would seem abandoned to the others meanwhile.
            with self._worker.holding([entry.encode() for entry in deliveries]):
                await self._take_held(deliveries, whose)

    async def _take_held(self, deliveries: Mapping[str, int], whose: str | None) -> None:
        logs.logger().info("entries taken over", entries=len(deliveries), whose=whose)
        worn_out = [entry for entry, n in deliveries.items() if n >= self._settings.max_deliveries]
        once = [entry for entry, n in deliveries.items() if n == 1]
        rest = [entry for entry, n in deliveries.items() if 1 < n < self._settings.max_deliveries]
        for entry in worn_out:
            await self._give_up(entry, deliveries[entry])
        for entries in (once, *([entry] for entry in rest)):
            if entries:
                number = deliveries[entries[0]] + 1  # of a batch, all were delivered once
                gathering = self._worker.gathering()
                gathering.extend(await self._patience.until_done(self._group.deliver, entries, number))
                again = {entry.encode(): n + 1 for entry, n in deliveries.items()}
                await self._worker.take(gathering, again)

    async def _give_up(self, entry_id: str, deliveries: int) -> None:
        history = self._worker.history
        # Only the beginning: it may have killed its workers by its size.
        entry = await self._patience.until_done(self._group.look_at, entry_id, self._worker.max_entry_bytes)
        if entry is not None:
            limit = self._settings.max_deliveries
            why = Unreadable(
                "max_deliveries",
                f"delivered {limit} times, and each time its worker died or hung; see its log",
            )
            await self._worker.bury(entry, deliveries, why, history)


_NAME = re.compile(r"^(?P<host>.+)-(?P<pid>[0-9]{1,19})-[0-9a-f]{6}$")


def is_gone(name: str, own: str) -> bool:
    """Whether a consumer is a former process of this host (see `Settings.consumer`) that runs no more."""
    theirs, ours = _NAME.match(name), _NAME.match(own)
    if theirs is None or ours is None or theirs["host"] != ours["host"] or name == own:
        return False
    return theirs["pid"] == ours["pid"] or not _runs(int(theirs["pid"]))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        return True
    return True
