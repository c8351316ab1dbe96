"""The storage of one partition in Redis."""

from __future__ import annotations

import random
from math import ceil
from typing import TYPE_CHECKING, Any

from deltaloom.streams import GROUP
from handlers.core.identity import EntryId, PartKey, StreamKey
from handlers.core.state import LowWater
from service.keys import SET_ASIDE
from service.ports.storage import (
    Committed,
    Contradicted,
    LoadedResponse,
    Settlement,
    StorageUnavailableError,
    Survey,
)
from service.storage import commit_plan, scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.commit_plan import SERVER_US, CommitCall
from service.storage.group import ConsumerGroup
from service.storage.loading import Wanted, calls_of
from service.storage.records import REGISTERS, in_ms, marked_parts, open_fields, registers_of, state_of
from service.storage.sent_cache import SentStates
from service.storage.server_clock import ServerClock
from service.storage.settle_plan import SettleCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from handlers.core.context import Registers
    from service.keys import Keys
    from service.ports.commit import Commit
    from service.settings import Settings

_RESPONSES_AT_ONCE = 100
"""Maximum responses with states that are read in one pipeline."""

CONFIRM_MS = 1000
"""Timeout in milliseconds of one WAIT or WAITAOF, which is retried."""


def _low_water(reply: scripts.LowWaterReply) -> LowWater:
    """Return the low-water mark: the oldest pending entry, or the next one to deliver if none is pending.

    A pending entry that is known to belong to one response holds back the mark of that response only. Even
    without pending entries the mark is finite: others may have read entries since the script ran.
    """
    oldest_pending, last_delivered, stalled, owned_entries = reply
    owned = {
        StreamKey.parse(member): LowWater(EntryId.parse(entry), stuck)
        for entry, member, stuck in reversed(owned_entries)  # the oldest entry of a response wins
    }
    if oldest_pending:
        return LowWater(EntryId.parse(oldest_pending), stalled, owned)
    return LowWater(EntryId.parse(last_delivered).next(), owned=owned)


class RedisStorage:
    """Implementation of `service.ports.storage.Storage` in Redis."""

    def __init__(self, client: Redis, keys: Keys, settings: Settings) -> None:
        self._client = client
        self._group = ConsumerGroup(client, keys, settings.consumer)
        self._keys = keys
        self._settings = settings
        self._commit = scripts.Script(client, "commit")
        self._settle = scripts.Script(client, "settle")
        self._survey = scripts.Script(client, "survey")
        self._read = scripts.Script(client, "load")
        self._sent = SentStates()
        self._clock = ServerClock()
        self._replication_id = ""
        """The replication id under which the cached data was sent; a failover or a restart changes it."""

    async def load_scripts(self) -> None:
        """Load the scripts on the server, so that the first batch is no slower than the second.

        Otherwise the second batch could overtake it, and a refusal's alert would begin with its second word.
        """
        with unavailable_if_away():
            for script in (self._commit, self._settle, self._survey, self._read):
                await script.load(self._keys.names.deltas)

    async def _in_group(self, script: scripts.Script, keys: list[str], args: Sequence[Any]) -> Any:
        """Run a script that needs the consumer group."""
        async with self._group.recreating_group():
            return await script(keys=keys, args=[GROUP, *args])

    @property
    def replication_id(self) -> str:
        """The server's replication id at the last commit; empty before the first."""
        return self._replication_id

    @property
    def now_ms(self) -> int:
        """The estimated time of the server, in milliseconds since the epoch."""
        return self._clock.now_ms

    async def commit(self, commit: Commit, replication_id: str = "", *, whole: bool = False) -> Committed:
        """Store a batch's effects and acknowledge its entries: see `service.ports.storage.Storage.commit`."""
        sent, read_in = self._sent, replication_id or self._replication_id
        call = CommitCall(commit, self._keys, self._settings, sent, read_in)
        if not whole and call.server_us > SERVER_US:
            return Committed(pieces=ceil(call.server_us / SERVER_US))
        packed, *found = await self._in_group(self._commit, call.keys, call.args)
        reply = scripts.decode_commit(packed)
        self._clock.observe(int(reply.now_ms))
        if reply.surviving_entries is not None:
            if reply.replication_id != self._replication_id:
                # A new cache: commits that are under way still record their data in the old one.
                self._sent, self._replication_id = SentStates(), reply.replication_id
            return Committed(surviving_entries=reply.surviving_entries, replication_id=reply.replication_id)
        self._replication_id = self._replication_id or reply.replication_id
        for response in reply.forgotten:
            sent.forget(call.responses[response])
        for log, size in reply.refused:
            key, part = call.grown[log]
            part.large = size > 0
            if not size:
                sent.forget(key)
        if reply.forgotten or reply.refused:
            return await self.commit(commit, read_in, whole=whole)
        committed = _committed(commit, call, reply, found)
        if committed.stored:
            call.stored()
        return committed

    async def note_owners(self, owners: Mapping[bytes, StreamKey]) -> None:
        """Record the responses of pending entries, so that texts of other responses do not wait for them."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hset(self._keys.owners, mapping={entry: str(key) for entry, key in owners.items()})
        pipeline.pexpire(self._keys.owners, in_ms(self._settings.state_ttl))
        with unavailable_if_away(self._keys.owners):
            await pipeline.execute()

    async def confirm(self) -> None:
        """Wait until all writes are on the replicas and the disk that the settings require.

        WAIT and WAITAOF cover the writes of their own connection, so the client must have a single one.

        Raises:
            StorageUnavailableError: the writes are not there within `CONFIRM_MS`; call again.
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
        """Return the stored context of the parts' responses: see `service.ports.storage.Storage.registers`.

        None means that the opening alert was raised before, or is raised when the part is finished: a part
        that is stored without an alert began with its whole text.
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

    async def load(self, stream_keys: Sequence[StreamKey]) -> Sequence[LoadedResponse]:
        """Read responses: first their states and the sizes of their open logs, then both together."""
        if not stream_keys:
            return []  # a script without keys would run on a random server
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
        """Return the keys to read for these responses, with their sizes."""
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
        """Return the finished parts in the markers of these responses."""
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

    async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> Sequence[PartKey]:
        """Write finished texts and their alerts: see `service.ports.storage.Storage.settle`."""
        call = SettleCall(settlements, replication_id, self._keys, self._settings)
        with unavailable_if_away():
            reply = await self._settle(keys=call.keys, args=call.args)
        for settlement in settlements:
            if settlement.ended:
                self._sent.forget(settlement.stream_key)
        return [settlements[s].closed[t].part for s, t in scripts.decode_settle(reply)]

    async def set_aside(self, stream_key: StreamKey) -> None:
        """Set a response aside: it is settled again only if more events come. Its keys expire."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.zrem(self._keys.waiting, str(stream_key))
        pipeline.zrem(self._keys.open, str(stream_key))
        pipeline.hincrby(self._keys.counts, SET_ASIDE, 1)
        with unavailable_if_away():
            await pipeline.execute()

    async def survey(self, idle_timeout_ms: int) -> Survey:
        """Return the responses that are ready or idle, independent of a batch."""
        return await self._look(idle_timeout_ms, commit_plan.AT_MOST, 0, 0)

    async def surplus(self, max_open: int, at_most: int | None = None) -> Survey:
        """Return at most `at_most` of the responses beyond `max_open` open ones."""
        return await self._look(0, 0, max_open, min(at_most or commit_plan.AT_MOST, commit_plan.AT_MOST))

    async def _look(self, idle_timeout_ms: int, at_most: int, max_open: int, surplus: int) -> Survey:
        keys = [self._keys.names.deltas, self._keys.open, self._keys.waiting, self._keys.owners]
        place = random.random()  # noqa: S311 - no secret
        args = [idle_timeout_ms, at_most, commit_plan.STALLED_MS, max_open, place, surplus]
        reply = await self._in_group(self._survey, keys, args)
        low_water, now_ms, ready, idle_scores, surplus_scores, replication_id, more = scripts.decode_survey(
            reply
        )
        idle, too_many = _scores(idle_scores), _scores(surplus_scores)
        self._clock.observe(int(now_ms))
        return Survey(
            low_water=_low_water(low_water),
            now_ms=int(now_ms),
            ready=[StreamKey.parse(member) for member in ready],
            more=more or max(len(idle), len(too_many)) >= commit_plan.AT_MOST,
            idle=idle,
            surplus=too_many,
            replication_id=replication_id,
        )


def _committed(commit: Commit, call: CommitCall, reply: scripts.CommitReply, found: list[Any]) -> Committed:
    """Return the result of a commit from the script's reply and the responses that it loaded."""

    def part_at(place: scripts.PartNumbers) -> PartKey:
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
        reported_crowds=reply.reported_crowds,
        low_water=_low_water(reply.low_water),
        ready=[StreamKey.parse(member) for member in reply.ready],
        loaded=[
            _loaded(call.responses[response], _pairs(state), _pairs(logs)) for response, state, logs in found
        ],
        more=reply.more or len(reply.ready) + len(found) >= commit_plan.AT_MOST,
        surplus=reply.surplus,
        replication_id=reply.replication_id,
        now_ms=int(reply.now_ms),
    )


def _loaded(key: StreamKey, state: Mapping[str, bytes], logs: Mapping[str, bytes | None]) -> LoadedResponse:
    sizes = {PartKey.from_field(key, field): len(log) for field, log in logs.items() if log is not None}
    alerted = [part for part in sizes if f"alerted:{part.field}" in state]
    return LoadedResponse(state_of(key, state, logs), int(state.get("version", 0)), sizes, alerted)


def _pairs(reply: list[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def _text_pairs(reply: list[str]) -> dict[str, bytes | None]:
    return {name: value.encode() for name, value in zip(reply[::2], reply[1::2], strict=True)}


def _named(reply: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in reply.items()}


def _scores(members: list[str]) -> dict[StreamKey, int]:
    pairs = zip(members[::2], members[1::2], strict=True)
    return {StreamKey.parse(member): int(float(score)) for member, score in pairs}
