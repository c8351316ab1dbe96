"""What a worker does, again and again: take a batch, and look around for what no batch will settle."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from handlers.core.assembly import assemble
from handlers.core.context import Registers, context_of
from handlers.core.response import IDLE_TIMEOUT, OPEN_LIMIT
from handlers.core.routing import Opening
from handlers.core.text import repair
from service import logs
from service.pipeline.batch import Batch
from service.pipeline.decode import Unreadable
from service.pipeline.settling import GivenUp, settle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from deltaloom.messages import ModerationAlert
    from deltaloom.streams import StreamNames
    from handlers.core.identity import PartKey
    from handlers.core.routing import RoutingTable
    from service.patience import Patience
    from service.ports import Committed, Entry, Storage
    from service.settings import Settings

_ALERTS_REMEMBERED = 10_000
"""Parts of which this worker knows that their alert was raised; forgetting one costs one look-up."""


class Worker:
    """Takes batches of entries through the handlers into storage. Holds no state that a crash could lose."""

    def __init__(
        self,
        storage: Storage,
        table: RoutingTable,
        names: StreamNames,
        settings: Settings,
        patience: Patience,
    ) -> None:
        self._storage = storage
        self._table = table
        self._names = names
        self._settings = settings
        self._alerted: OrderedDict[PartKey, None] = OrderedDict()
        self._patience = patience
        self._in_hand: Counter[str] = Counter()

    async def take(self, entries: Sequence[Entry]) -> None:
        """Take a batch: store its effects, acknowledge it, finish what can be finished.

        Waits as long as storage is unavailable; every step may be done again.
        """
        with self._batch_in_hand(entries):
            for some in slices(entries, self._settings.max_batch_bytes):
                committed = await self._patience.until_done(self._commit, some)
                await self._patience.until_done(
                    settle, self._storage, self._table, committed.ready, committed.low_water
                )
                await self._patience.until_done(self._storage.confirm)
                if committed.more:
                    await self._patience.until_done(self.sweep)

    async def bury(self, entries: Sequence[Entry], why: Unreadable) -> None:
        """Make entries dead letters without looking into them."""
        with self._batch_in_hand(entries):
            batch = self._batch(())
            for entry in entries:
                batch.bury_whole(entry, why)
            self._log(batch, await self._patience.until_done(self._storage.commit, batch.commit))

    @contextmanager
    def holding(self, entry_ids: Collection[str]) -> Iterator[None]:
        """Say that these are in hand, so that they are kept from others and not claimed by itself."""
        self._in_hand.update(entry_ids)
        try:
            yield
        finally:
            self._in_hand.subtract(entry_ids)

    @property
    def in_hand(self) -> set[str]:
        """The ids of the entries it works on now."""
        return set(+self._in_hand)

    @contextmanager
    def _batch_in_hand(self, entries: Sequence[Entry]) -> Iterator[None]:
        ids = [str(entry.id) for entry in entries]
        first, last = (ids[0], ids[-1]) if ids else (None, None)
        with (
            self.holding(ids),
            logs.bound(stream=self._names.deltas, first_entry=first, last_entry=last),
        ):
            yield

    async def sweep(self) -> None:
        """Settle what no batch will: left over by another worker, passed by the low-water mark, or idle."""
        while await self._sweep_some():
            pass

    async def _sweep_some(self) -> bool:
        """Settle as much as one survey names; whether it is worth while to look for more."""
        with logs.bound(stream=self._names.deltas):
            return await self._settle_surveyed()

    async def _settle_surveyed(self) -> bool:
        survey = await self._storage.survey(
            round(self._settings.idle_timeout * 1000), self._settings.max_open_responses
        )
        surplus = {key: GivenUp(ms, survey.now_ms, OPEN_LIMIT) for key, ms in survey.surplus.items()}
        idle = {key: GivenUp(ms, survey.now_ms, IDLE_TIMEOUT) for key, ms in survey.idle.items()}
        given_up = {**surplus, **idle}
        stream_keys = list(dict.fromkeys((*survey.ready, *given_up)))
        written = await settle(self._storage, self._table, stream_keys, survey.low_water, given_up)
        return survey.more and written > 0

    async def _commit(self, entries: Sequence[Entry]) -> Committed:
        batch = self._batch(entries)
        await self._open_alerts(batch)
        committed = await self._storage.commit(batch.commit)
        while committed.overflowing:
            for part in committed.overflowing:
                batch.take_out(part, self._too_large(part))
            committed = await self._storage.commit(batch.commit)
        self._log(batch, committed)
        return committed

    def _batch(self, entries: Sequence[Entry]) -> Batch:
        return Batch(
            entries,
            self._table,
            stream=self._names.deltas,
            now_ms=time.time_ns() // 1_000_000,
            max_event_bytes=self._settings.max_event_bytes,
            max_array_length=self._settings.max_array_length,
        )

    def _too_large(self, part: PartKey) -> Unreadable:
        size, number = self._settings.max_part_bytes, self._settings.max_part_fragments
        return Unreadable(
            "oversized", f"the {part.kind} of this response would exceed {size} bytes or {number} deltas"
        )

    async def _open_alerts(self, batch: Batch) -> None:
        """Give the parts that begin with this batch their alert, with what is known of their response."""
        new = {
            part: change
            for response in batch.commit.responses.values()
            for part, change in response.parts.items()
            if part not in self._alerted and self._opens(part)
        }
        if not new:
            return
        for part, stored in (await self._storage.registers(list(new))).items():
            if stored is None:
                self._remember(part)
            else:
                new[part].opened = self._opening(batch, part, stored)

    def _opens(self, part: PartKey) -> bool:
        handler = self._table.kinds.get(part.kind)
        return handler is not None and handler.opened is not None

    def _opening(self, batch: Batch, part: PartKey, stored: Registers) -> ModerationAlert | None:
        response = batch.commit.responses[part.stream_key]
        log = response.parts[part].log
        context = context_of({**response.registers, **stored})
        text = assemble(log.fragments).text or next((closing.text for closing in log.closings), "")
        opened = self._table.kinds[part.kind].opened
        began_ms = min(log.arrivals).entry.ms
        return opened and opened(Opening(part, repair(text), log.item_id, context, began_ms))

    def _remember(self, part: PartKey) -> None:
        self._alerted[part] = None
        if len(self._alerted) > _ALERTS_REMEMBERED:
            self._alerted.popitem(last=False)

    def _log(self, batch: Batch, committed: Committed) -> None:
        log = logs.logger()
        log.debug(
            "batch committed",
            entries=len(batch.entries),
            acknowledged=committed.acknowledged,
            responses=len(batch.commit.responses),
            late_events=committed.late_events,
        )
        for part in committed.opened:
            self._remember(part)
            alert = batch.commit.responses[part.stream_key].parts[part].opened
            if alert is not None:
                log.warning(
                    "refusal opened",
                    response=alert.response_id,
                    item=alert.item_id,
                    alert=alert.id,
                    text=alert.text,
                )
        for index, letter in batch.commit.dead_letters:
            log.warning(
                "dead letter",
                entry=str(batch.entries[index].id),
                response=batch.said(index).response_id,
                reason=letter.reason,
                error=letter.error,
            )


def slices(entries: Sequence[Entry], max_bytes: int) -> Iterator[Sequence[Entry]]:
    """The entries in order, in slices of at most so many bytes (or of one entry)."""
    first, size = 0, 0
    for index, entry in enumerate(entries):
        more = sum(map(len, entry.fields.values()))
        if index > first and size + more > max_bytes:
            yield entries[first:index]
            first, size = index, 0
        size += more
    if entries:
        yield entries[first:]
