"""The sets, in one partition of one Redis."""

from __future__ import annotations

import random
from math import ceil
from typing import TYPE_CHECKING, Any

from deltaloom.streams import GROUP
from handlers.core.identity import EntryId, PartKey, StreamKey
from handlers.core.state import LowWater
from service.keys import SET_ASIDE
from service.ports.storage import Committed, Contradicted, Loaded, Settlement, StorageUnavailableError, Survey
from service.storage import commit_plan, scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.clock import ServerClock
from service.storage.commit_plan import SERVER_US, CommitCall
from service.storage.group import ConsumerGroup
from service.storage.loading import Wanted, calls_of
from service.storage.records import REGISTERS, in_ms, marked_parts, open_fields, registers_of, state_of
from service.storage.sent_cache import Told
from service.storage.settle_plan import SettleCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from handlers.core.context import Registers
    from service.keys import Keys
    from service.ports.commit import Commit
    from service.settings import Settings

_RESPONSES_AT_ONCE = 100
"""Responses whose states are read at once."""

CONFIRM_MS = 1000
"""Milliseconds that one question to the replicas may take; it is asked again."""


def _low_water(reply: scripts.LowWaterReply) -> LowWater:
    """Return the entry before which all are acknowledged: the oldest pending, else the next to be delivered.

    Of pending entries that are known to be one response's, only that one's mark is held back.
    Not "infinity" where nothing is pending: others may have been given entries since the script ran.
    """
    oldest_pending, last_delivered, stalled, owned_entries = reply
    owned = {
        StreamKey.parse(member): LowWater(EntryId.parse(entry), stuck)
        for entry, member, stuck in reversed(owned_entries)  # of several the oldest
    }
    if oldest_pending:
        return LowWater(EntryId.parse(oldest_pending), stalled, owned)
    return LowWater(EntryId.parse(last_delivered).next(), owned=owned)


class RedisStorage:
    """The worker's port to Redis: see `service.ports.storage.Storage`."""

    def __init__(self, client: Redis, keys: Keys, settings: Settings) -> None:
        self._client = client
        self._group = ConsumerGroup(client, keys, settings.consumer)
        self._keys = keys
        self._settings = settings
        self._commit = scripts.Script(client, "commit")
        self._settle = scripts.Script(client, "settle")
        self._survey = scripts.Script(client, "survey")
        self._read = scripts.Script(client, "load")
        self._told = Told()
        self._clock = ServerClock()
        self._history = ""
        """Of the data to which it was told: a replication id, which a failover or a restart replaces."""

    async def load_scripts(self) -> None:
        """Have the server know the scripts, so that the first batch is no slower than the second.

        It would be overtaken, and a refusal's alert begin with its second word.
        """
        with unavailable_if_away():
            for script in (self._commit, self._settle, self._survey, self._read):
                await script.load(self._keys.names.deltas)

    async def _in_group(self, script: scripts.Script, keys: list[str], args: Sequence[Any]) -> Any:
        """Run a script that needs the group."""
        async with self._group.there():
            return await script(keys=keys, args=[GROUP, *args])

    @property
    def history(self) -> str:
        """Which history of its data the server was in when it was last asked; empty: not yet."""
        return self._history

    @property
    def now_ms(self) -> int:
        """The server's time in milliseconds since the epoch, as far as its answers told it."""
        return self._clock.now_ms

    async def commit(self, commit: Commit, history: str = "", *, whole: bool = False) -> Committed:
        """Make a batch's effects durable and acknowledge it, in one step.

        Args:
            commit: the batch, or a piece of one.
            history: what it was when the batch was read, if that is known.
            whole: try it however long the script takes.
        """
        told, read_in = self._told, history or self._history
        call = CommitCall(commit, self._keys, self._settings, told, read_in)
        if not whole and call.server_us > SERVER_US:
            return Committed(pieces=ceil(call.server_us / SERVER_US))
        packed, *found = await self._in_group(self._commit, call.keys, call.args)
        reply = scripts.decode_commit(packed)
        self._clock.told(int(reply.now_ms))
        if reply.still_there is not None:
            if reply.history != self._history:
                # What is on its way to the old one may still be noted as told, in the old memory.
                self._told, self._history = Told(), reply.history
            return Committed(still_there=reply.still_there, history=reply.history)
        self._history = self._history or reply.history
        for response in reply.forgotten:
            told.forget(call.responses[response])
        for log, size in reply.refused:
            key, part = call.grown[log]
            part.large = size > 0
            if not size:
                told.forget(key)
        if reply.forgotten or reply.refused:
            return await self.commit(commit, read_in, whole=whole)
        committed = _committed(commit, call, reply, found)
        if committed.stored:
            call.stored()
        return committed

    async def note_owners(self, owners: Mapping[bytes, StreamKey]) -> None:
        """Note whose pending entries are, so that no text of others waits for them."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hset(self._keys.owners, mapping={entry: str(key) for entry, key in owners.items()})
        pipeline.pexpire(self._keys.owners, in_ms(self._settings.state_ttl))
        with unavailable_if_away(self._keys.owners):
            await pipeline.execute()

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
        """For parts about to raise an alert, what is known of their response.

        None if it was raised, or is raised when the part is finished: of one that is stored without an alert,
        the text came whole.
        """
        names = list(REGISTERS)
        pipeline = self._client.pipeline(transaction=False)
        for part in parts:
            pipeline.hmget(
                self._keys.state(part.stream_key), [f"alerted:{part.field}", f"part:{part.field}", *names]
            )
        with unavailable_if_away():
            replies = await pipeline.execute()
        return {
            part: None
            if alerted or state is not None
            else registers_of(dict(zip(names, values, strict=True)))
            for part, (alerted, state, *values) in zip(parts, replies, strict=True)
        }

    async def load(self, stream_keys: Sequence[StreamKey]) -> Sequence[Loaded]:
        """Read responses: first which parts are open, and how large, then those and what else is known."""
        if not stream_keys:
            return []  # a script without keys would run on any server
        wanted = [
            each
            for first in range(0, len(stream_keys), _RESPONSES_AT_ONCE)
            for each in await self._wanted(stream_keys[first : first + _RESPONSES_AT_ONCE])
        ]
        found: dict[str, Any] = {}
        for some in calls_of(wanted):
            with unavailable_if_away():
                reply = await self._read(keys=[key for key, _ in some], args=[kind for _, kind in some])
            found |= zip((key for key, _ in some), reply, strict=True)
        return [
            _loaded(
                each.stream_key,
                _pairs(found[each.state]),
                {field: found[log] for field, log in each.logs.items()},
            )
            for each in wanted
        ]

    async def _wanted(self, stream_keys: Sequence[StreamKey]) -> list[Wanted]:
        """Return what there is to read of responses."""
        pipeline = self._client.pipeline(transaction=False)
        for key in stream_keys:
            pipeline.hgetall(self._keys.state(key))
        with unavailable_if_away():
            states = [_named(reply) for reply in await pipeline.execute()]
        logs = [
            {field: self._keys.log(PartKey.from_field(key, field)) for field in open_fields(state)}
            for key, state in zip(stream_keys, states, strict=True)
        ]
        for each in logs:
            for log in each.values():
                pipeline.strlen(log)
        with unavailable_if_away():
            sizes = iter(await pipeline.execute() if len(pipeline) else [])
        return [
            Wanted(
                key,
                self._keys.state(key),
                sum(map(len, state.values())),
                each,
                [next(sizes) for _ in each],
            )
            for key, state, each in zip(stream_keys, states, logs, strict=True)
        ]

    async def marked(self, stream_keys: Sequence[StreamKey]) -> Sequence[PartKey]:
        """Return the finished parts that the markers of these responses remember."""
        pipeline = self._client.pipeline(transaction=False)
        for key in stream_keys:
            pipeline.get(self._keys.marker(key))
        with unavailable_if_away():
            markers = await pipeline.execute()
        return [
            part
            for key, marker in zip(stream_keys, markers, strict=True)
            if marker is not None
            for part in marked_parts(key, marker)
        ]

    async def settle(self, settlements: Sequence[Settlement], history: str) -> Sequence[PartKey]:
        """Write finished texts with their alerts, once each; returns the parts that were not yet written."""
        call = SettleCall(settlements, history, self._keys, self._settings)
        with unavailable_if_away():
            reply = await self._settle(keys=call.keys, args=call.args)
        for settlement in settlements:
            if settlement.ended:
                self._told.forget(settlement.stream_key)
        return [settlements[s].closed[t].part for s, t in scripts.decode_settle(reply)]

    async def set_aside(self, stream_key: StreamKey) -> None:
        """Give up settling a response: nobody looks at it again unless more comes; its keys expire."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.zrem(self._keys.waiting, str(stream_key))
        pipeline.zrem(self._keys.open, str(stream_key))
        pipeline.hincrby(self._keys.counts, SET_ASIDE, 1)
        with unavailable_if_away():
            await pipeline.execute()

    async def survey(self, idle_timeout_ms: int) -> Survey:
        """Look for responses that can be settled though no batch says so: ready or idle ones."""
        return await self._look(idle_timeout_ms, commit_plan.AT_MOST, 0, 0)

    async def surplus(self, max_open: int, at_most: int | None = None) -> Survey:
        """Look for responses beyond the limit of open ones, so many at most, if that is given."""
        return await self._look(0, 0, max_open, min(at_most or commit_plan.AT_MOST, commit_plan.AT_MOST))

    async def _look(self, idle_timeout_ms: int, at_most: int, max_open: int, surplus: int) -> Survey:
        keys = [self._keys.names.deltas, self._keys.open, self._keys.waiting, self._keys.owners]
        place = random.random()  # noqa: S311 - no secret
        args = [idle_timeout_ms, at_most, commit_plan.STALLED_MS, max_open, place, surplus]
        reply = await self._in_group(self._survey, keys, args)
        low_water, now_ms, ready, idle_scores, surplus_scores, history, more = scripts.decode_survey(reply)
        idle, too_many = _scores(idle_scores), _scores(surplus_scores)
        self._clock.told(int(now_ms))
        return Survey(
            low_water=_low_water(low_water),
            now_ms=int(now_ms),
            ready=[StreamKey.parse(member) for member in ready],
            more=more or max(len(idle), len(too_many)) >= commit_plan.AT_MOST,
            idle=idle,
            surplus=too_many,
            history=history,
        )


def _committed(commit: Commit, call: CommitCall, reply: scripts.CommitReply, found: list[Any]) -> Committed:
    """Return what became of a commit from the script's answer, and the responses that it loaded."""

    def part_at(place: scripts.Place) -> PartKey:
        response, part = place
        return parts_of[response][part]

    named = {response for response, _ in (*reply.overflowing, *reply.crowded, *reply.opened)}
    named |= {response for response, *_ in reply.contradicted}
    parts_of = {response: list(commit.responses[call.responses[response]].parts) for response in named}
    return Committed(
        overflowing=list(map(part_at, reply.overflowing)),
        crowded=list(map(part_at, reply.crowded)),
        noted_too_often=[call.responses[response] for response in reply.noted_too_often],
        contradicted={
            part_at((response, part)): Contradicted(digest, registers_of(_text_pairs(context)))
            for response, part, digest, context in reply.contradicted
        },
        acknowledged=reply.acknowledged,
        opened=list(map(part_at, reply.opened)),
        late_events=reply.late_events,
        told_of_crowds=reply.told_of_crowds,
        low_water=_low_water(reply.low_water),
        ready=[StreamKey.parse(member) for member in reply.ready],
        loaded=[
            _loaded(call.responses[response], _pairs(state), _pairs(logs)) for response, state, logs in found
        ],
        more=reply.more or len(reply.ready) + len(found) >= commit_plan.AT_MOST,
        surplus=reply.surplus,
        history=reply.history,
        now_ms=int(reply.now_ms),
    )


def _loaded(key: StreamKey, state: Mapping[str, bytes], logs: Mapping[str, bytes | None]) -> Loaded:
    sizes = {PartKey.from_field(key, field): len(log) for field, log in logs.items() if log is not None}
    alerted = [part for part in sizes if f"alerted:{part.field}" in state]
    return Loaded(state_of(key, state, logs), int(state.get("version", 0)), sizes, alerted)


def _pairs(reply: list[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def _text_pairs(reply: list[str]) -> dict[str, bytes | None]:
    return {name: value.encode() for name, value in zip(reply[::2], reply[1::2], strict=True)}


def _named(reply: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in reply.items()}


def _scores(members: list[str]) -> dict[StreamKey, int]:
    pairs = zip(members[::2], members[1::2], strict=True)
    return {StreamKey.parse(member): int(float(score)) for member, score in pairs}
