"""The sets, in one partition of one Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import exceptions

from deltaloom.streams import GROUP
from handlers.core.identity import EntryId, PartKey, StreamKey
from handlers.core.log import encode_chunk
from handlers.core.response import LowWater
from service.ports import (
    Commit,
    Committed,
    Loaded,
    ResponseChange,
    Settlement,
    StorageUnavailableError,
    Survey,
)
from service.storage import scripts
from service.storage.availability import unavailable_if_away
from service.storage.group import ConsumerGroup
from service.storage.records import (
    REGISTERS,
    arrival_field,
    encode_ending,
    entry_of,
    entry_of_letter,
    open_fields,
    register_field,
    register_value,
    registers_of,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

    from deltaloom.messages import AssembledText, ModerationAlert
    from handlers.core.context import Registers
    from service.keys import Keys
    from service.settings import Settings

STALLED_MS = 250
"""Milliseconds after which a worker that still holds an entry is taken for stuck: a batch takes a few.

Texts that are certain without that entry are finished from then on; those in doubt wait for it.
"""

CONFIRM_MS = 1000
"""Milliseconds that one question to the replicas may take; it is asked again."""

AT_MOST = 500
"""Responses that a commit or a survey names as ready; the next survey names the rest."""

_ANSWERED_WITHOUT_GROUP = ("NOGROUP", "ERR no such key", "no such key")


def _low_water(reply: scripts.LowWaterReply) -> LowWater:
    """The entry before which all are acknowledged: the oldest pending, else the next to be delivered.

    Not "infinity" where nothing is pending: others may have been given entries since the script ran.
    """
    oldest_pending, last_delivered, stalled = reply
    if oldest_pending:
        return LowWater(EntryId.parse(oldest_pending), stalled)
    return LowWater(EntryId.parse(last_delivered).next())


class RedisStorage:
    """The worker's port to Redis: see `service.ports.Storage`."""

    def __init__(self, client: Redis, keys: Keys, settings: Settings) -> None:
        self._client = client
        self._group = ConsumerGroup(client, keys, settings.consumer)
        self._keys = keys
        self._settings = settings
        self._commit = scripts.register(client, "commit")
        self._settle = scripts.register(client, "settle")
        self._survey = scripts.register(client, "survey")

    async def _in_group(self, script: AsyncScript, keys: list[str], args: list[Any]) -> bytes:
        """Run a script that needs the group; if it is gone (FLUSHALL), make it again and ask to try again."""
        with unavailable_if_away():
            try:
                reply: bytes = await script(keys=keys, args=[GROUP, *args])
            except exceptions.ResponseError as error:
                if not str(error).startswith(_ANSWERED_WITHOUT_GROUP):
                    raise
            else:
                return reply
        await self._group.ensure()
        raise StorageUnavailableError(
            "NOGROUP", f"the group {GROUP} of {self._keys.names.deltas} was gone, and is made again"
        )

    async def commit(self, commit: Commit) -> Committed:
        """Make a batch's effects durable and acknowledge it, in one step."""
        names = self._keys.names
        call = scripts.Call(
            names.deltas,
            names.dead_letters,
            names.alerts,
            self._keys.counts,
            self._keys.open,
            self._keys.waiting,
        )
        responses = [self._planned(key, change, call) for key, change in commit.responses.items()]
        plan = scripts.CommitPlan(
            entries=[str(entry) for entry in commit.entries],
            dead_letters=[
                scripts.PlannedLetter(at, entry_of_letter(letter)) for at, letter in commit.dead_letters
            ],
            counts=[scripts.PlannedCount(name, entries) for name, entries in commit.counts.items()],
            touched=[value for key, ms in commit.touched.items() for value in (ms, str(key))],
            responses=responses,
            ttl_ms=_ms(self._settings.state_ttl),
            fragments_limit=self._settings.max_part_fragments,
            ready_at_most=AT_MOST,
            stalled_ms=STALLED_MS,
        )
        reply = await self._in_group(self._commit, call.keys, [scripts.encode(plan), *call.blobs])
        overflowing, acknowledged, opened, late_events, low_water, ready = scripts.decode_commit(reply)
        parts = [list(change.parts) for change in commit.responses.values()]
        return Committed(
            overflowing=[parts[response][part] for response, part in overflowing],
            acknowledged=acknowledged,
            opened=[parts[response][part] for response, part in opened],
            late_events=late_events,
            low_water=_low_water(low_water),
            ready=[StreamKey.parse(member) for member in ready],
            more=len(ready) >= AT_MOST,
        )

    def _planned(self, key: StreamKey, change: ResponseChange, call: scripts.Call) -> scripts.PlannedResponse:
        closings = [
            *(closing.arrival for part in change.parts.values() for closing in part.log.closings),
            *change.endings,
        ]
        return scripts.PlannedResponse(
            state=call.key(self._keys.state(key)),
            member=str(key),
            latest_ms=change.latest_ms,
            entries=sorted(change.entries),
            closing_ms=min(closings).entry.ms if closings else None,
            registers=[
                scripts.PlannedRegister(register_field(name), register_value(register))
                for name, register in change.registers.items()
            ],
            endings=[
                scripts.PlannedEnding(arrival_field(at), call.blob(encode_ending(ending)))
                for at, ending in change.endings.items()
            ],
            parts=[
                scripts.PlannedPart(
                    field=part.field,
                    log=call.key(self._keys.log(part)),
                    chunk=call.blob(encode_chunk(added.log)),
                    bytes_limit=self._bytes_limit(closes=not added.log.fragments),
                    entries=added.entries,
                    opened=_entry(added.opened),
                )
                for part, added in change.parts.items()
            ],
        )

    def _bytes_limit(self, *, closes: bool) -> int:
        """Bytes a part's log may have. What closes a full part still fits: its text, and its copies."""
        room = 4 * self._settings.max_event_bytes if closes else 0
        return self._settings.max_part_bytes + room

    async def confirm(self) -> None:
        """Come back when all that was written is on as many replicas, and on disk, as the settings want.

        WAIT and WAITAOF speak of their own connection's writes, so that the client must have but one.
        """
        replicas, on_disk = self._settings.wait_replicas, self._settings.wait_aof
        if not replicas and not on_disk:
            return
        with unavailable_if_away():
            if on_disk:
                local, remote = await self._client.waitaof(1, replicas, CONFIRM_MS)
            else:
                local, remote = 1, await self._client.wait(replicas, CONFIRM_MS)
        if not local:
            raise StorageUnavailableError("WAIT", "the last batch is not yet in the append-only file on disk")
        if remote < replicas:
            raise StorageUnavailableError("WAIT", f"{remote} of {replicas} replicas have the last batch")

    async def registers(self, parts: Sequence[PartKey]) -> Mapping[PartKey, Registers | None]:
        """For parts about to raise an alert, what is known of their response; None if it was raised."""
        names = list(REGISTERS)
        pipeline = self._client.pipeline(transaction=False)
        for part in parts:
            pipeline.hmget(
                self._keys.state(part.stream_key), [f"alerted:{part.field}", f"part:{part.field}", *names]
            )
        with unavailable_if_away():
            replies = await pipeline.execute()
        return {
            part: None if alerted or state == b"done" else registers_of(dict(zip(names, values, strict=True)))
            for part, (alerted, state, *values) in zip(parts, replies, strict=True)
        }

    async def load(self, stream_keys: Sequence[StreamKey]) -> Sequence[Loaded]:
        """Read responses.

        First which parts are open, then in one step those and what else is known: a log that is newer than
        the context beside it would give a text that does not say whose it is.
        """
        keys = list(map(self._keys.state, stream_keys))
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hgetall(key)
        with unavailable_if_away():
            open_parts = [open_fields(_named(reply)) for reply in await pipeline.execute()]
        together = self._client.pipeline(transaction=True)
        for stream_key, key, fields in zip(stream_keys, keys, open_parts, strict=True):
            together.hgetall(key)
            for field in fields:
                together.get(self._keys.log(PartKey.from_field(stream_key, field)))
        with unavailable_if_away():
            replies = iter(await together.execute())
        loaded = []
        for stream_key, fields in zip(stream_keys, open_parts, strict=True):
            state = _named(next(replies))
            logs: dict[str, bytes | None] = {field: next(replies) for field in fields}
            loaded.append(Loaded(state_of(stream_key, state, logs), int(state.get("version", 0))))
        return loaded

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[PartKey]:
        """Write finished texts with their alerts, once each; returns the parts that were not yet written."""
        names = self._keys.names
        call = scripts.Call(
            names.assembled, names.alerts, self._keys.counts, self._keys.open, self._keys.waiting
        )
        plan = scripts.SettlePlan(
            settlements=[self._planned_settlement(settlement, call) for settlement in settlements],
            marker_ttl_ms=_ms(self._settings.marker_ttl),
            item_ttl_ms=_ms(self._settings.item_ttl),
        )
        with unavailable_if_away():
            reply = await self._settle(keys=call.keys, args=[scripts.encode(plan)])
        return [settlements[s].texts[t].part for s, t in scripts.decode_settle(reply)]

    def _planned_settlement(self, settlement: Settlement, call: scripts.Call) -> scripts.PlannedSettlement:
        texts = []
        for text in settlement.texts:
            json = text.message.model_dump_json()
            texts.append(
                scripts.PlannedText(
                    field=text.part.field,
                    log=call.key(self._keys.log(text.part)),
                    item=call.key(self._keys.item(text.part)),
                    item_field=f"{text.part.kind}:{text.part.content_index}",
                    message=entry_of(text.message, json),
                    json=json,
                    fragments=text.message.delta_count + text.message.duplicate_count,
                    opened=_entry(text.opened),
                    finished=_entry(text.finished),
                )
            )
        doubtful = settlement.doubtful_since
        return scripts.PlannedSettlement(
            state=call.key(self._keys.state(settlement.stream_key)),
            member=str(settlement.stream_key),
            version=settlement.version,
            spent=[arrival_field(arrival) for arrival in settlement.spent],
            ended=settlement.ended,
            texts=texts,
            doubtful_ms=None if doubtful is None else doubtful.ms,
            idle_since_ms=settlement.idle_since_ms,
        )

    async def survey(self, idle_timeout_ms: int, max_open: int) -> Survey:
        """Look for responses that can be settled though no batch says so."""
        keys = [self._keys.names.deltas, self._keys.open, self._keys.waiting]
        reply = await self._in_group(self._survey, keys, [idle_timeout_ms, AT_MOST, STALLED_MS, max_open])
        low_water, now_ms, ready, idle, surplus = scripts.decode_survey(reply)
        return Survey(
            low_water=_low_water(low_water),
            now_ms=int(now_ms),
            ready=[StreamKey.parse(member) for member in ready],
            more=len(ready) >= AT_MOST,
            idle=_scores(idle),
            surplus=_scores(surplus),
        )


def _entry(message: AssembledText | ModerationAlert | None) -> list[str] | None:
    return None if message is None else entry_of(message, message.model_dump_json())


def _named(reply: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in reply.items()}


def _scores(members: list[str]) -> dict[StreamKey, int]:
    pairs = zip(members[::2], members[1::2], strict=True)
    return {StreamKey.parse(member): int(float(score)) for member, score in pairs}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
