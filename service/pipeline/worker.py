"""What a worker does, again and again: take a batch, and look around for what no batch will settle."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from handlers.core.context import Registers, context_of
from handlers.core.response import IDLE_TIMEOUT, OPEN_LIMIT
from handlers.core.routing import Opening
from handlers.core.text import repair
from service import logs
from service.keys import LATE
from service.pipeline.batch import Batch
from service.pipeline.decode import Unreadable
from service.pipeline.gathering import Gathered, Gathering
from service.pipeline.settling import GivenUp, settle
from service.pipeline.sources import Reading
from service.pipeline.times import believed
from service.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from deltaloom.messages import ModerationAlert
    from deltaloom.streams import StreamNames
    from handlers.core.identity import PartKey, StreamKey
    from handlers.core.routing import RoutingTable
    from service.patience import Patience
    from service.pipeline.sources import OpenEntry
    from service.ports.commit import Commit
    from service.ports.storage import Committed, RawEntry, Storage, Survey
    from service.settings import Settings

_ALERTS_REMEMBERED = 1000
"""Of so many parts, or twice as many, it is remembered that their alert was raised; forgetting one costs one
look-up."""

_Alerted = Recent["PartKey", bool]


@dataclass(slots=True)
class _InHand:
    """Entries that are to be committed."""

    batch: Gathered
    history: str
    """The one of the data that they were read from."""


class _TooMuchAtOnceError(Exception):
    """A batch has to be cut into about so many."""

    def __init__(self, pieces: int) -> None:
        super().__init__(f"{pieces} times what a commit may have")
        self.pieces = pieces


class Worker:
    """Takes batches of entries through the handlers into storage. Holds no state that a crash could lose."""

    def __init__(
        self,
        storage: Storage,
        table: RoutingTable,
        names: StreamNames,
        settings: Settings,
        patience: Patience,
        open_entry: OpenEntry,
    ) -> None:
        self._storage = storage
        self._table = table
        self._names = names
        self._settings = settings
        self._alerted: _Alerted = Recent(_ALERTS_REMEMBERED)
        self._patience = patience
        self._held: list[Collection[bytes]] = []
        self._reading = Reading(
            table,
            open_entry,
            stream=names.deltas,
            max_event_bytes=settings.max_event_bytes,
            max_array_length=settings.max_array_length,
            max_response_parts=settings.max_response_parts,
        )

    @property
    def history(self) -> str:
        """Which history of its data storage was in when it was last asked; empty: not yet."""
        return self._storage.history

    def gathering(self, entries: Sequence[RawEntry] = ()) -> Gathering:
        """Where entries are put as they are read, to be taken together; with these in it."""
        gathering = Gathering(self._reading.rules, self._settings.max_batch_bytes, self.history)
        gathering.extend(entries)
        return gathering

    async def take(self, gathering: Gathering, deliveries: Mapping[bytes, int] | None = None) -> None:
        """Take entries: store their effects, acknowledge them, finish what can be finished.

        Waits as long as storage is unavailable; every step may be done again.

        Args:
            gathering: the entries.
            deliveries: of entries that were delivered before, how often.
        """
        with self._batch_in_hand(gathering.ids):
            if gathering.owners:
                await self._patience.until_done(self._storage.note_owners, gathering.owners)
            batches = deque(gathering.batches)
            while batches:
                hand = _InHand(batches.popleft(), gathering.history)
                try:
                    committed = await self._patience.until_done(self._commit, hand, deliveries)
                except _TooMuchAtOnceError as error:
                    batches.extendleft(reversed(hand.batch.cut(error.pieces)))
                    continue
                await self._patience.until_done(self._settle, committed)
                await self._patience.until_done(self._storage.confirm)
                # Some more: the sweep does all the rest, beside the batches.
                if committed.more and not committed.low_water.stalled:
                    await self._patience.until_done(self._settle_surveyed)
                if committed.surplus:
                    await self._patience.until_done(self._give_up_surplus, committed.surplus)

    @property
    def max_entry_bytes(self) -> int:
        """Bytes of an entry that it looks into, or keeps."""
        return self._reading.max_entry_bytes

    async def bury(self, entry: RawEntry, deliveries: int, why: Unreadable, history: str) -> None:
        """Make an entry a dead letter without looking into it; the rest as in `take`."""
        with self._batch_in_hand([entry.id]):
            hand = _InHand(Gathered.unread(self._reading.rules, [entry]), history)
            await self._patience.until_done(self._commit, hand, {entry.id: deliveries}, why)

    @contextmanager
    def holding(self, entry_ids: Collection[bytes]) -> Iterator[None]:
        """Say that these are in hand, so that they are kept from others and not claimed by itself."""
        self._held.append(entry_ids)
        try:
            yield
        finally:
            self._held.remove(entry_ids)

    @property
    def in_hand(self) -> set[bytes]:
        """The ids of the entries it works on now."""
        return set().union(*self._held)

    @contextmanager
    def _batch_in_hand(self, entry_ids: Sequence[bytes]) -> Iterator[None]:
        first, last = (entry_ids[0].decode(), entry_ids[-1].decode()) if entry_ids else (None, None)
        with (
            self.holding(entry_ids),
            logs.bound(stream=self._names.deltas, first_entry=first, last_entry=last),
        ):
            yield

    async def sweep(self) -> None:
        """Settle what no batch will: left over by another worker, passed by the low-water mark, or idle."""
        with logs.bound(stream=self._names.deltas):
            for settle_some in (self._settle_surveyed, self._give_up_surplus):
                named: frozenset[StreamKey] = frozenset()
                while (more := await settle_some()) != named:
                    named = more  # if a look names the same ones again, nothing can be done about them

    async def _settle_surveyed(self) -> frozenset[StreamKey]:
        """Settle what one survey names; return that if there may be more, else nothing."""
        survey = await self._storage.survey(round(self._settings.idle_timeout * 1000))
        return await self._settle_all(survey)

    async def _give_up_surplus(self, at_most: int | None = None) -> frozenset[StreamKey]:
        """Give up some responses beyond the limit of open ones; return them if there may be more."""
        return await self._settle_all(await self._storage.surplus(self._settings.max_open_responses, at_most))

    async def _settle_all(self, survey: Survey) -> frozenset[StreamKey]:
        surplus = {key: GivenUp(ms, survey.now_ms, OPEN_LIMIT) for key, ms in survey.surplus.items()}
        idle = {key: GivenUp(ms, survey.now_ms, IDLE_TIMEOUT) for key, ms in survey.idle.items()}
        given_up = {**surplus, **idle}
        named = list(dict.fromkeys((*survey.ready, *given_up)))
        loaded = await self._storage.load(named)
        await settle(self._storage, self._table, loaded, survey.low_water, survey.history, given_up)
        return frozenset(named) if survey.more else frozenset()

    async def _settle(self, committed: Committed) -> None:
        loaded = committed.loaded
        if committed.ready:
            loaded = [*loaded, *await self._storage.load(committed.ready)]
        await settle(self._storage, self._table, loaded, committed.low_water, committed.history)

    async def _commit(
        self, hand: _InHand, deliveries: Mapping[bytes, int] | None, bury: Unreadable | None = None
    ) -> Committed:
        alerted = self._alerted
        read = partial(
            Batch, hand.batch, self._reading, now_ms=self._storage.now_ms, deliveries=deliveries, bury=bury
        )
        # A large entry takes as long as thousands of others, which go on meanwhile.
        batch = await asyncio.to_thread(read) if hand.batch.dear else read()
        await self._open_alerts(batch, alerted)
        committed = await self._store(batch.commit, hand.history)
        while committed.must_change:
            batch.leave_out(committed.crowded)
            batch.leave_out_notes(committed.noted_too_often)
            crowded = set(committed.crowded)
            batch.take_out(
                {part: self._too_large(part) for part in committed.overflowing if part not in crowded}
            )
            for part, stored in committed.contradicted.items():
                batch.contradict(part, stored)
            committed = await self._store(batch.commit, hand.history)
        if committed.still_there is not None:
            # Redis has gone back, perhaps: to before those alerts, and before some of these entries.
            self._alerted = Recent(_ALERTS_REMEMBERED)
            left = [hand.batch.raw(n) for n in committed.still_there]
            gathered = Gathered.of if bury is None else Gathered.unread
            hand.batch = gathered(self._reading.rules, left)
            hand.history = committed.history
            return await self._commit(hand, deliveries, bury)
        self._log(batch, committed, alerted)
        return committed

    async def _store(self, commit: Commit, history: str) -> Committed:
        """Commit a batch at once or, if that would hold up the server, one entry's effects in pieces.

        Raises:
            _TooMuchAtOnceError: there are several entries: they have to be cut into smaller batches.
        """
        committed = await self._storage.commit(commit, history)
        if committed.pieces == 1:
            return committed
        if len(commit.entries) > 1:
            raise _TooMuchAtOnceError(committed.pieces)
        opened: list[PartKey] = []
        late = 0
        for piece in commit.pieces(committed.pieces):
            if piece.acknowledges and late:  # counted with the entry, and so once
                piece.counts = {**piece.counts, LATE: [0] * late}
            committed = await self._storage.commit(piece, history, whole=True)
            if not committed.stored:
                break
            opened += committed.opened
            late += committed.late_events
        return replace(committed, opened=opened, late_events=late)

    def _too_large(self, part: PartKey) -> Unreadable:
        settings = self._settings
        return Unreadable(
            "oversized",
            f"the {part.kind} of this response would exceed {settings.max_part_bytes} bytes or "
            f"{settings.max_part_fragments} deltas, or the response {settings.max_response_bytes} bytes",
        )

    async def _open_alerts(self, batch: Batch, alerted: _Alerted) -> None:
        """Give the parts that begin with this batch their alert, with what is known of their response.

        A text that came whole may be a copy of another one: it has its alert when it is settled.
        """
        new = {
            part: change
            for response in batch.commit.responses.values()
            for part, change in response.parts.items()
            if self._opens(part) and not alerted.get(part) and batch.commit.begins_with_delta(change)
        }
        if not new:
            return
        for part, stored in (await self._storage.registers(list(new))).items():
            if stored is None:
                alerted[part] = True
            else:
                new[part].opened = self._opening(batch, part, stored)

    def _opens(self, part: PartKey) -> bool:
        handler = self._table.kinds.get(part.kind)
        return handler is not None and handler.opened is not None

    def _opening(self, batch: Batch, part: PartKey, stored: Registers) -> ModerationAlert | None:
        response = batch.commit.responses[part.stream_key]
        change = response.parts[part]
        context = context_of({**response.registers, **stored})
        text = batch.commit.text_of(change)
        opened = self._table.kinds[part.kind].opened
        began_ms = believed(batch.commit.began(change).ms, self._storage.now_ms)
        return opened and opened(Opening(part, repair(text), change.item_id, context, began_ms))

    def _log(self, batch: Batch, committed: Committed, alerted: _Alerted) -> None:
        log = logs.logger()
        if logs.wanted(logging.DEBUG):
            log.debug(
                "batch committed",
                entries=len(batch),
                acknowledged=committed.acknowledged,
                responses=len(batch.commit.responses),
                late_events=committed.late_events,
            )
        for part in committed.opened:
            alerted[part] = True
            alert = batch.commit.responses[part.stream_key].parts[part].opened
            if alert is not None:
                log.warning(
                    "refusal opened",
                    response=alert.response_id,
                    item=alert.item_id,
                    alert=alert.id,
                    text=alert.text,
                )
        crowds = [each for each in batch.commit.crowded.values() if each[0] in committed.told_of_crowds]
        for index, letter in [*batch.commit.dead_letters, *crowds]:
            log.warning(
                "dead letter",
                entry=batch.commit.entries[index].decode(),
                response=batch.said(index).response_id,
                reason=letter.reason,
                error=letter.error,
            )
