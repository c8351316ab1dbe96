"""Process batches from decoding to settlement, and sweep up responses that no batch settles."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from handlers.core.context import Registers, context_of, merged
from handlers.core.response import IDLE_TIMEOUT, OPEN_LIMIT
from handlers.core.routing import Opening
from handlers.core.text import repair
from service import logs
from service.keys import LATE, LEFT_OUT
from service.pipeline.batch import Batch
from service.pipeline.batch_builder import BatchBuilder
from service.pipeline.decode import Unreadable
from service.pipeline.decoded_batch import DecodedBatch
from service.pipeline.event_router import EventRouter
from service.pipeline.settling import GivenUp, settle
from service.pipeline.times import at_most_now
from service.ports.instruments import CommittedWork
from service.ports.spans import NO_SPAN
from service.ports.telemetry import SILENT
from service.two_generation_cache import TwoGenerationCache

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from deltaloom.messages import ModerationAlert
    from deltaloom.streams import StreamNames
    from handlers.core.identity import PartKey, StreamKey
    from handlers.core.routing import RoutingTable
    from handlers.core.state import LowWater
    from service.pipeline.event_router import OpenEntry
    from service.ports.commit import Commit, PartChange
    from service.ports.spans import BatchSpan
    from service.ports.storage import Committed, RawEntry, Storage, Survey
    from service.ports.telemetry import Telemetry
    from service.retrying import RetryUntilAvailable
    from service.settings import Settings

_ALERTS_REMEMBERED = 1000
"""Size of each generation of the cache of parts with a raised alert. The cache holds up to twice as many; a
miss costs one look-up in storage."""

_LOADED_AT_ONCE = 50
"""Maximum responses that are loaded before the texts of the first ones are written."""

_Alerted = TwoGenerationCache["PartKey", bool]


@dataclass(slots=True)
class _PendingBatch:
    """A batch to commit.

    After a failover or restart of the server, `batch` is replaced by one of the entries that still exist, and
    `replication_id` and `read_ms` change with it.
    """

    batch: DecodedBatch
    replication_id: str
    """Replication id of the data that the entries were read from."""
    read_ms: int = 0
    """Server time in ms since the epoch shortly before the entries were read.

    0 means that they may have been read long ago, or by another worker.
    """
    may_be_owned: bool = True
    """False if storage has certainly recorded no owner of these entries.

    That is so if the entries were read for the first time and the builder has no owners to record.
    """
    span: BatchSpan = NO_SPAN


@dataclass(slots=True, eq=False)
class _Settling:
    """A settlement of several responses that is under way; the future `ended` is done when it has ended."""

    keys: frozenset[StreamKey]
    ended: asyncio.Future[None]
    skipped: set[StreamKey] = field(default_factory=set)
    """Responses among `keys` that other tasks have skipped because this settlement is under way."""


class _MustBeCutError(Exception):
    """A batch has to be cut into about `pieces` smaller ones."""

    def __init__(self, pieces: int) -> None:
        super().__init__(f"the batch has to be cut into {pieces} pieces")
        self.pieces = pieces


class BatchProcessor:
    """Takes the batches of a partition through the handlers into storage.

    A crash loses nothing: this process holds only caches, and entries that are not acknowledged.
    """

    def __init__(
        self,
        storage: Storage,
        table: RoutingTable,
        names: StreamNames,
        settings: Settings,
        retrying: RetryUntilAvailable,
        open_entry: OpenEntry,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._instruments = telemetry.instruments
        self._spans = telemetry.spans
        self._storage = storage
        self._table = table
        self._names = names
        self._settings = settings
        self._alerted: _Alerted = TwoGenerationCache(_ALERTS_REMEMBERED)
        self._closing_types = frozenset(
            route.event_type
            for handler in table.handlers
            if handler.opened is not None or handler.finished is not None
            for route in handler.routes
            if route.adds is None
        )
        """Types, other than deltas, of the handlers that raise alerts: their events can close a text."""
        self._opening_kinds = frozenset(
            kind for kind, handler in table.kinds.items() if handler.opened is not None
        )
        """Kinds of texts that get an alert when they begin."""
        self._retrying = retrying
        self._in_progress: list[Collection[bytes]] = []
        self._settling: list[_Settling] = []
        """The settlements of batches and sweeps that are under way."""
        self._router = EventRouter(
            table,
            open_entry,
            stream=names.deltas,
            max_event_bytes=settings.max_event_bytes,
            max_array_length=settings.max_array_length,
            max_response_parts=settings.max_response_parts,
        )

    @property
    def replication_id(self) -> str:
        """Replication id that storage last reported; empty before the first report."""
        return self._storage.replication_id

    def builder(self, entries: Sequence[RawEntry] = ()) -> BatchBuilder:
        """Return a new builder for the entries of one read, with `entries` in it.

        The builder takes the present replication id and server time as those of the beginning of the read.
        """
        # Before the first commit, the time would be that of this machine.
        read_ms = self._storage.now_ms if self.replication_id else 0
        builder = BatchBuilder(
            self._router.rules, self._settings.max_batch_bytes, self.replication_id, read_ms
        )
        if entries:
            builder.extend(entries)
        return builder

    def is_urgent(self, builder: BatchBuilder) -> bool:
        """Return whether the entries so far may raise an alert: a small one may begin or close such a text.

        A delta counts if its kind gets an opening alert, and this process does not know that the alert of its
        part was raised. Large entries, and events on the slow path, do not count.
        """
        if not self._closing_types.isdisjoint(builder.handled_types()):
            return True
        for key, column in builder.columns():
            target = self._router.target(key, column.metadata)
            part = None if target is None else target.part
            if part is not None and part.kind in self._opening_kinds and not self._alerted.get(part):
                return True
        return False

    async def process(self, builder: BatchBuilder, deliveries: Mapping[bytes, int] | None = None) -> None:
        """Store the effects of entries, acknowledge them, and write the texts that can be finished.

        The batches of the builder take these steps one after another. Meanwhile all entries are in progress.
        If the responses exceed the limit of open ones, some that are longest idle are given up. A step is
        retried for as long as storage is unavailable; repeating a step changes nothing.

        Args:
            builder: the entries.
            deliveries: number of deliveries of each redelivered entry, by id, the present one included.
                A missing id means 1. None means that all entries were read for the first time.
        """
        read_ms = builder.read_ms if deliveries is None else 0
        may_be_owned = deliveries is not None or bool(builder.owners)
        with self._batch_in_progress(builder.ids, read=deliveries is None) as span:
            if builder.owners:
                await self._retrying.call(self._storage.record_owners, builder.owners)
            batches = deque(builder.batches)
            while batches:
                pending = _PendingBatch(
                    batches.popleft(), builder.replication_id, read_ms, may_be_owned, span
                )
                try:
                    committed = await self._retrying.call(self._commit, pending, deliveries)
                except _MustBeCutError as error:
                    batches.extendleft(reversed(pending.batch.cut(error.pieces)))
                    continue
                with self._marked_as_settling((*committed.loaded_keys, *committed.ready)) as mark:
                    await self._retrying.call(self._settle, committed)
                await self._retrying.call(self._settle_skipped, mark)
                await self._retrying.call(self._storage.confirm)
                # One survey only: the sweep settles the rest, concurrently with batches.
                if committed.more and not committed.low_water.stalled:
                    await self._retrying.call(self._settle_surveyed)
                if committed.surplus:
                    await self._retrying.call(self._give_up_surplus, committed.surplus)

    @property
    def max_entry_bytes(self) -> int:
        """Maximum bytes of an entry that is decoded, and that a dead letter keeps."""
        return self._router.max_entry_bytes

    async def dead_letter(
        self, entry: RawEntry, deliveries: int, why: Unreadable, replication_id: str
    ) -> None:
        """Make an entry a dead letter without decoding it, and acknowledge it.

        Retry for as long as storage is unavailable.

        Args:
            entry: the entry.
            deliveries: number of its deliveries.
            why: the reason and error of the letter.
            replication_id: replication id of the data that the entry was read from.
        """
        with self._batch_in_progress([entry.id]) as span:
            unread = DecodedBatch.unread(self._router.rules, [entry])
            pending = _PendingBatch(unread, replication_id, span=span)
            await self._retrying.call(self._commit, pending, {entry.id: deliveries}, why)

    @contextmanager
    def marked_in_progress(self, entry_ids: Collection[bytes]) -> Iterator[None]:
        """Mark entries as in progress until the block ends.

        Meanwhile, their idle time is renewed, and this worker does not claim them again.
        """
        self._in_progress.append(entry_ids)
        try:
            yield
        finally:
            self._in_progress.remove(entry_ids)

    @property
    def in_progress(self) -> set[bytes]:
        """Ids of the entries that `process` or `dead_letter` works on, or that a caller has marked."""
        return set().union(*self._in_progress)

    @contextmanager
    def _batch_in_progress(self, entry_ids: Sequence[bytes], *, read: bool = False) -> Iterator[BatchSpan]:
        first, last = (entry_ids[0].decode(), entry_ids[-1].decode()) if entry_ids else (None, None)
        self._instruments.batch_begins(len(entry_ids), len(entry_ids) if read else 0)
        try:
            with (
                self.marked_in_progress(entry_ids),
                logs.bound(stream=self._names.deltas, first_entry=first, last_entry=last),
                self._spans.batch(self._names.deltas, len(entry_ids), redelivered=not read) as span,
            ):
                yield span
        finally:
            self._instruments.batch_ends()

    async def sweep(self) -> None:
        """Settle ready responses, and give up idle ones and those beyond the limit of open ones.

        Repeat until storage reports no more of them, or the same ones again. An error of storage ends the
        sweep without a retry.
        """
        with logs.bound(stream=self._names.deltas):
            for settle_some in (self._settle_surveyed, self._give_up_surplus):
                before: frozenset[StreamKey] = frozenset()
                while (found := await settle_some()) and found != before:
                    before = found  # the same ones again cannot be settled now
                    await self._until_one_is_free(found)

    async def _until_one_is_free(self, keys: frozenset[StreamKey]) -> None:
        """Wait for the first end of a settlement, if each of these responses is in a settlement under way.

        Otherwise, return at once. Until such an end, each survey would return the same responses again. Wait
        at most for the sweep interval, because a settlement retries for as long as storage is unavailable.
        """
        others = [mark for mark in self._settling if not mark.keys.isdisjoint(keys)]
        if others and keys <= frozenset().union(*[mark.keys for mark in others]):
            await asyncio.wait(
                [mark.ended for mark in others],
                timeout=self._settings.sweep_interval,
                return_when=asyncio.FIRST_COMPLETED,
            )

    async def _settle_surveyed(self) -> frozenset[StreamKey]:
        """Settle the ready responses of one survey, and give up its idle ones.

        Return the keys of all of them if storage may have more, else an empty set. Responses in a settlement
        under way are left to that one.
        """
        survey = await self._storage.survey(round(self._settings.idle_timeout * 1000))
        return await self._settle_all(survey)

    async def _give_up_surplus(self, at_most: int | None = None) -> frozenset[StreamKey]:
        """Give up the longest idle responses beyond the limit of open ones.

        Return their keys if storage may have more of them, else an empty set. `at_most` limits their number;
        None means the storage's own limit.
        """
        return await self._settle_all(await self._storage.surplus(self._settings.max_open_responses, at_most))

    async def _settle_all(self, survey: Survey) -> frozenset[StreamKey]:
        surplus = {key: GivenUp(ms, survey.now_ms, OPEN_LIMIT) for key, ms in survey.surplus.items()}
        idle = {key: GivenUp(ms, survey.now_ms, IDLE_TIMEOUT) for key, ms in survey.idle.items()}
        given_up = {**surplus, **idle}
        named = dict.fromkeys((*survey.ready, *given_up))
        free = self._not_settling(named)
        with self._marked_as_settling(free) as mark:
            await self._load_and_settle(free, survey.low_water, survey.replication_id, given_up)
        await self._settle_skipped(mark)
        return frozenset(named) if survey.more else frozenset()

    async def _settle(self, committed: Committed) -> None:
        low_water, replication_id = committed.low_water, committed.replication_id
        await settle(self._storage, self._table, committed.loaded, low_water, replication_id)
        await self._load_and_settle(committed.ready, low_water, replication_id)

    async def _settle_skipped(self, mark: _Settling) -> None:
        """Settle the responses in `mark.skipped` that one new survey returns as ready.

        Call it after the settlement `mark` has ended. Without skipped responses, do nothing.
        """
        if mark.skipped:
            survey = await self._storage.survey(round(self._settings.idle_timeout * 1000))
            ready = [key for key in survey.ready if key in mark.skipped]
            await self._load_and_settle(ready, survey.low_water, survey.replication_id)

    def _not_settling(self, keys: Iterable[StreamKey]) -> list[StreamKey]:
        """Return the responses that are in no settlement under way.

        Add each other one to `skipped` of its settlement: the task of that settlement settles it again.
        """
        rest = []
        for key in keys:
            mark = next((each for each in self._settling if key in each.keys), None)
            if mark is None:
                rest.append(key)
            else:
                mark.skipped.add(key)
        return rest

    @contextmanager
    def _marked_as_settling(self, keys: Iterable[StreamKey]) -> Iterator[_Settling]:
        mark = _Settling(frozenset(keys), asyncio.get_running_loop().create_future())
        self._settling.append(mark)
        try:
            yield mark
        finally:
            self._settling.remove(mark)
            mark.ended.set_result(None)

    async def _load_and_settle(
        self,
        keys: Sequence[StreamKey],
        low_water: LowWater,
        replication_id: str,
        given_up: Mapping[StreamKey, GivenUp] = MappingProxyType({}),
    ) -> None:
        for first in range(0, len(keys), _LOADED_AT_ONCE):
            loaded = await self._storage.load(keys[first : first + _LOADED_AT_ONCE])
            await settle(self._storage, self._table, loaded, low_water, replication_id, given_up)

    async def _commit(
        self,
        pending: _PendingBatch,
        deliveries: Mapping[bytes, int] | None,
        dead_letter: Unreadable | None = None,
    ) -> Committed:
        """Turn a batch into a commit, and store it.

        Change and repeat a commit that storage refuses because of a limit or a missing alert. After a
        failover, begin again with the entries that still exist, and put them into `pending`. Log and count
        what was stored. The result's `ready` has no responses that other tasks settle now, except those that
        this batch has changed.

        Raises:
            _MustBeCutError: the batch has to be cut into batches of fewer entries.
        """
        alerted = self._alerted  # a failover replaces it, and this batch must not write into the new one
        read = partial(
            Batch,
            pending.batch,
            self._router,
            now_ms=self._storage.now_ms,
            deliveries=deliveries,
            dead_letter=dead_letter,
        )
        # A large entry takes as long as thousands of others; a thread lets those go on.
        batch = await asyncio.to_thread(read) if pending.batch.has_large else read()
        batch.commit.read_ms, batch.commit.may_be_owned = pending.read_ms, pending.may_be_owned
        await self._add_opening_alerts(batch, alerted)
        committed = await self._store(batch.commit, pending.replication_id)
        while committed.must_change:
            self._change(batch, committed)
            committed = await self._store(batch.commit, pending.replication_id)
        if committed.surviving_entries is not None:
            self._leave_out_lost(pending, committed, dead_letter)
            return await self._commit(pending, deliveries, dead_letter)
        for part in committed.opened_parts:
            alerted[part] = True
        self._log(batch, committed)
        if self._instruments.on:
            self._instruments.committed(_work_of(batch, committed), committed.now_ms)
        if pending.span.on:
            letters = len(_letters_of(batch.commit, committed))
            pending.span.committed(batch.traceparents(), committed.acknowledged, letters)
        if self._settling and committed.ready:
            # Those that this batch has changed have to be read again.
            changed = batch.commit.responses.keys()
            others = self._not_settling([key for key in committed.ready if key not in changed])
            mine = [key for key in committed.ready if key in changed]
            return replace(committed, ready=[*mine, *others])
        return committed

    def _change(self, batch: Batch, committed: Committed) -> None:
        """Change the commit of a batch that storage has refused.

        Leave out parts and notes beyond the limits of a response, make dead letters of the events of parts
        that would be too large, and add missing alerts about contradictions.
        """
        batch.leave_out(committed.crowded)
        batch.leave_out_notes(committed.too_many_notes)
        crowded = set(committed.crowded)
        batch.reject_parts(
            {part: self._too_large(part) for part in committed.overflowing if part not in crowded}
        )
        for part, stored in committed.contradicted.items():
            batch.contradict(part, stored)

    def _leave_out_lost(
        self, pending: _PendingBatch, committed: Committed, dead_letter: Unreadable | None
    ) -> None:
        """Reduce `pending` to the entries that survived a failover or restart, with the new replication id.

        Forget which opening alerts were raised, because they may be lost, too.
        """
        self._alerted = TwoGenerationCache(_ALERTS_REMEMBERED)
        left = [pending.batch.raw(n) for n in committed.surviving_entries or ()]
        decoded = DecodedBatch.of if dead_letter is None else DecodedBatch.unread
        pending.batch = decoded(self._router.rules, left)
        pending.replication_id = committed.replication_id
        pending.read_ms = 0  # the server may not know that it has delivered the entries

    async def _store(self, commit: Commit, replication_id: str) -> Committed:
        """Commit a batch in one call, or in several if one would block the server for too long.

        Each of several calls stores the effects on some of the responses, and the last one acknowledges. If
        storage refuses a call, no further one is made; earlier calls have stored their effects. The result is
        that of the last call made, with the alerts and late events of all.

        Raises:
            _MustBeCutError: the batch has to be cut into batches of fewer entries.
        """
        committed = await self._storage.commit(commit, replication_id)
        if committed.pieces == 1:
            return committed
        # The late events of all pieces are counted as those of entry 0. That is exact only if all entries are
        # pending, or none is.
        if len(commit.entries) > 1 and not (committed.by_response and commit.read_ms):
            raise _MustBeCutError(committed.pieces)
        pieces = committed.pieces
        opened_parts: list[PartKey] = []
        disputed_parts: list[PartKey] = []
        late = 0
        for piece in commit.pieces(pieces):
            if piece.acknowledges and late:  # counted in the last piece, so once
                piece.counts = {**piece.counts, LATE: [0] * late}
            committed = await self._storage.commit(piece, replication_id, whole=True)
            if not committed.stored:
                break
            opened_parts += committed.opened_parts
            disputed_parts += committed.disputed_parts
            late += committed.late_events
        # The last piece has reported the surplus for its own responses.
        return replace(
            committed,
            opened_parts=opened_parts,
            disputed_parts=disputed_parts,
            late_events=late,
            surplus=committed.surplus * pieces,
        )

    def _too_large(self, part: PartKey) -> Unreadable:
        settings = self._settings
        return Unreadable(
            "oversized",
            f"the {part.kind} of this response would exceed {settings.max_part_bytes} bytes or "
            f"{settings.max_part_fragments} deltas, or the response {settings.max_response_bytes} bytes",
        )

    async def _add_opening_alerts(self, batch: Batch, alerted: _Alerted) -> None:
        """Add the `opened` alert to parts that begin with a delta in this batch.

        The alert has the context of the response that this batch and storage know. A part that does not begin
        with a delta gets no alert here, because its text may be a copy of another one; settlement raises it.
        Parts in `alerted` get none. Parts that storage says need none are added to `alerted`.
        """
        new = {
            part: change
            for response in batch.commit.responses.values()
            for part, change in response.parts.items()
            if part.kind in self._opening_kinds
            and not alerted.get(part)
            and batch.commit.begins_with_delta(change)
        }
        if not new:
            return
        for part, stored in (await self._storage.registers_for_opening(list(new))).items():
            if stored is None:
                alerted[part] = True
            else:
                new[part].opening_alert = self._opening_alert(batch, part, stored)

    def _opening_alert(self, batch: Batch, part: PartKey, stored: Registers) -> ModerationAlert | None:
        response = batch.commit.responses[part.stream_key]
        change = response.parts[part]
        context = context_of(merged(response.registers, stored))
        text = batch.commit.text_of(change)
        make_alert = self._table.kinds[part.kind].opened
        began_ms = at_most_now(batch.commit.began(change).ms, self._storage.now_ms)
        return make_alert and make_alert(Opening(part, repair(text), change.item_id, context, began_ms))

    def _log(self, batch: Batch, committed: Committed) -> None:
        log = logs.logger()
        if logs.wanted(logging.DEBUG):
            log.debug(
                "batch committed",
                entries=len(batch),
                acknowledged=committed.acknowledged,
                responses=len(batch.commit.responses),
                late_events=committed.late_events,
            )
        for part in committed.opened_parts:
            alert = batch.commit.responses[part.stream_key].parts[part].opening_alert
            if alert is not None:
                log.warning(
                    f"{part.kind} opened",  # noqa: G004 - few kinds, so the events are as good as fixed
                    response=alert.response_id,
                    item=alert.item_id,
                    alert=alert.id,
                    text=alert.text,
                )
        crowds = [each for each in batch.commit.crowded.values() if each[0] in committed.reported_crowds]
        for index, letter in [*batch.commit.dead_letters, *crowds]:
            log.warning(
                "dead letter",
                entry=batch.commit.entries[index].decode(),
                response=batch.producer_context(index).response_id,
                reason=letter.reason,
                error=letter.error,
            )


def _work_of(batch: Batch, committed: Committed) -> CommittedWork:
    """Return the effects of a committed batch to count.

    Events, losses, left-out fields and dead letters of entries that were acknowledged before are missing.
    """
    commit, only = batch.commit, committed.pending_entries
    return CommittedWork(
        committed.acknowledged,
        batch.event_types(only) if committed.acknowledged else {},
        committed.late_events,
        _lost_events(commit, only) if committed.acknowledged else 0,
        _ignored_fields(commit, only) if commit.counts else 0,
        _letters_of(commit, committed) if commit.dead_letters or committed.reported_crowds else (),
        _alerts_of(commit, committed) if committed.opened_parts or committed.disputed_parts else (),
    )


def _lost_events(commit: Commit, only: Collection[int] | None) -> int:
    return sum(number for index, number in commit.lost_events.items() if only is None or index in only)


def _ignored_fields(commit: Commit, only: Collection[int] | None) -> int:
    return sum(
        len(entries) if only is None else sum(entry in only for entry in entries)
        for name, entries in commit.counts.items()
        if name.startswith(LEFT_OUT)
    )


def _letters_of(commit: Commit, committed: Committed) -> list[str]:
    """Return the reason of each dead letter that a commit has written, with repeats."""
    only = committed.pending_entries
    crowds = {index: letter.reason for index, letter in commit.crowded.values()}
    reasons = [letter.reason for index, letter in commit.dead_letters if only is None or index in only]
    return reasons + [crowds[index] for index in committed.reported_crowds]


def _alerts_of(commit: Commit, committed: Committed) -> list[ModerationAlert]:
    """Return the alerts that a commit has raised: about beginnings first, then about contradictions."""

    def change_of(part: PartKey) -> PartChange:
        return commit.responses[part.stream_key].parts[part]

    alerts = [change_of(part).opening_alert for part in committed.opened_parts]
    alerts += [change_of(part).contradicted for part in committed.disputed_parts]
    return [alert for alert in alerts if alert is not None]
