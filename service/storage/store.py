"""The storage of one partition in Redis."""

from __future__ import annotations

import random
import time
from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec

from deltaloom.streams import GROUP
from handlers.core.identity import PartKey
from service.keys import SET_ASIDE
from service.ports.storage import Committed, StorageUnavailableError
from service.storage import commit_plan, replies, scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.commit_plan import MAX_SERVER_US, plan_commit
from service.storage.group import ConsumerGroup
from service.storage.loading import Wanted, reads_of
from service.storage.records import REGISTERS, in_ms, marked_parts, open_fields, registers_of
from service.storage.replies import named, pairs
from service.storage.sent_cache import SentStates
from service.storage.server_clock import ServerClock
from service.storage.settle_plan import plan_settlements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from handlers.core.context import Registers
    from handlers.core.identity import StreamKey
    from service.keys import Keys
    from service.ports.commit import Commit
    from service.ports.storage import LoadedResponse, Settlement, Survey
    from service.settings import Settings
    from service.storage.commit_plan import CommitPlan
    from service.storage.replies import CommitReply

_RESPONSES_AT_ONCE = 100
"""Maximum responses with states that are read in one pipeline."""

_OPENINGS_AT_ONCE = 500
"""Maximum parts whose context is read in one call, so that it blocks the server only for some 10 ms."""

_REGISTER_NAMES = msgspec.msgpack.encode(list(REGISTERS))
"""Fields of the registers in a state, as opening.lua expects them."""

CONFIRM_MS = 1000
"""Timeout in milliseconds of one WAIT or WAITAOF, which is retried."""


class RedisStorage:
    """Implementation of `service.ports.storage.Storage` in Redis."""

    def __init__(self, client: Redis, keys: Keys, settings: Settings) -> None:
        self._client = client
        self._group = ConsumerGroup(client, keys, settings.consumer)
        self._keys = keys
        self._settings = settings
        self._commit_script = scripts.Script(client, "commit")
        self._settle_script = scripts.Script(client, "settle")
        self._survey_script = scripts.Script(client, "survey")
        self._load_script = scripts.Script(client, "load")
        self._opening_script = scripts.Script(client, "opening")
        self._sent = SentStates()
        self._clock = ServerClock()
        self._replication_id = ""
        """The replication id under which the cached data was sent; a failover or a restart changes it."""

    async def load_scripts(self) -> None:
        """Load the scripts on the server, so that the first batch is no slower than the second.

        Otherwise the second batch could overtake it, and an opening alert would begin at the second word.
        """
        with unavailable_if_away():
            for script in (
                self._commit_script,
                self._settle_script,
                self._survey_script,
                self._load_script,
                self._opening_script,
            ):
                await script.load(self._keys.names.deltas)

    async def _run_in_group(self, script: scripts.Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
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
        sent, expected_id = self._sent, replication_id or self._replication_id
        while True:
            plan = plan_commit(commit, sent, self._keys, self._settings, expected_id, time.monotonic())
            if not whole and plan.server_us > MAX_SERVER_US:
                return Committed(pieces=ceil(plan.server_us / MAX_SERVER_US))
            packed, *loaded = await self._run_in_group(self._commit_script, plan.keys, plan.args)
            reply = replies.decode_commit(packed)
            self._clock.observe(int(reply.now_ms))
            if reply.surviving_entries is not None:
                return self._lost_writes(reply.surviving_entries, reply.replication_id)
            self._replication_id = self._replication_id or reply.replication_id
            if not reply.missing_data and not reply.refused_logs:
                break
            _correct(sent, plan, reply)
        committed = replies.committed_from(reply, loaded, commit, plan)
        if committed.stored:
            sent.record(plan.sends)
        return committed

    def _lost_writes(self, surviving_entries: Sequence[int], replication_id: str) -> Committed:
        """Return the result of a commit that was refused because the server may have lost earlier writes."""
        if replication_id != self._replication_id:
            # A new cache: commits that are under way still record their data in the old one.
            self._sent, self._replication_id = SentStates(), replication_id
        return Committed(surviving_entries=surviving_entries, replication_id=replication_id)

    async def record_owners(self, owners: Mapping[bytes, StreamKey]) -> None:
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

    async def registers_for_opening(self, parts: Sequence[PartKey]) -> Mapping[PartKey, Registers | None]:
        """Return the stored context of the parts' responses: see `Storage.registers_for_opening`.

        None means that no alert is to be raised now: it was raised before, or the part is stored without one,
        because it did not begin with a delta, and settlement raises it.
        """
        values_of_parts: list[list[bytes | None]] = []
        for first in range(0, len(parts), _OPENINGS_AT_ONCE):
            some = parts[first : first + _OPENINGS_AT_ONCE]
            with unavailable_if_away():
                values_of_parts += await self._opening_script(
                    keys=[self._keys.state(part.stream_key) for part in some],
                    args=[_REGISTER_NAMES, *(part.field for part in some)],
                )
        return {
            part: None
            if alerted or status is not None
            else registers_of(dict(zip(REGISTERS, values, strict=True)))
            for part, (alerted, status, *values) in zip(parts, values_of_parts, strict=True)
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
        for some in reads_of(wanted):
            with unavailable_if_away():
                reply = await self._load_script(
                    keys=[key for key, _ in some], args=[kind for _, kind in some]
                )
            found |= zip((key for key, _ in some), reply, strict=True)
        return [
            replies.loaded_from(
                each.stream_key,
                named(pairs(found[each.state])),
                {field: found[log] for field, log in each.logs.items()},
            )
            for each in wanted
        ]

    async def _wanted(self, stream_keys: Sequence[StreamKey]) -> list[Wanted]:
        """Return the keys to read for these responses, with the sizes of their values in bytes."""
        pipeline = self._client.pipeline(transaction=False)
        for key in stream_keys:
            pipeline.hgetall(self._keys.state(key))
        with unavailable_if_away():
            states = [named(reply.items()) for reply in await pipeline.execute()]
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
        plan = plan_settlements(settlements, replication_id, self._keys, self._settings)
        with unavailable_if_away():
            reply = await self._settle_script(keys=plan.keys, args=plan.args)
        for settlement in settlements:
            if settlement.ended:
                self._sent.remove(settlement.stream_key)
        return [settlements[s].closed[t].part for s, t in replies.decode_settle(reply)]

    async def set_aside(self, stream_key: StreamKey) -> None:
        """Set a response aside: it is settled again only if more events come. Its keys expire.

        A repeated call may count it twice.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.zrem(self._keys.waiting, str(stream_key))
        pipeline.zrem(self._keys.open, str(stream_key))
        pipeline.hincrby(self._keys.counts, SET_ASIDE, 1)
        with unavailable_if_away():
            await pipeline.execute()

    async def survey(self, idle_timeout_ms: int) -> Survey:
        """Return the responses that are ready or idle, independent of a batch."""
        return await self._look(idle_timeout_ms, commit_plan.MAX_RESPONSES, 0, 0)

    async def surplus(self, max_open: int, at_most: int | None = None) -> Survey:
        """Return at most `at_most` of the responses beyond `max_open` open ones."""
        return await self._look(
            0, 0, max_open, min(at_most or commit_plan.MAX_RESPONSES, commit_plan.MAX_RESPONSES)
        )

    async def _look(self, idle_timeout_ms: int, at_most: int, max_open: int, surplus: int) -> Survey:
        keys = [self._keys.names.deltas, self._keys.open, self._keys.waiting, self._keys.owners]
        place = random.random()  # noqa: S311 - no secret
        args = [idle_timeout_ms, at_most, commit_plan.STALLED_MS, max_open, place, surplus]
        reply = replies.decode_survey(await self._run_in_group(self._survey_script, keys, args))
        self._clock.observe(int(reply.now_ms))
        return replies.survey_from(reply)


def _correct(sent: SentStates, plan: CommitPlan, reply: CommitReply) -> None:
    """Remove the data that storage does not have, so that the next plan sends it."""
    for response in reply.missing_data:
        sent.remove(plan.responses[response])
    for log, size in reply.refused_logs:
        part = plan.growing_parts[log]
        if size:
            sent.mark_large(part)
        else:
            sent.remove(part.stream_key)
