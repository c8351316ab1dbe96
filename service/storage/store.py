"""The storage of one partition in Redis."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from deltaloom.streams import GROUP
from service.keys import SET_ASIDE
from service.ports.instruments import OFF
from service.ports.storage import Committed, StorageUnavailableError, TextToWrite
from service.storage import commit_plan, replies, scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.commit_plan import plan_commit
from service.storage.group import ConsumerGroup
from service.storage.loading import ResponseLoader
from service.storage.records import REGISTERS, in_ms, marked_parts, registers_of
from service.storage.sent_cache import SentStates
from service.storage.server_clock import ServerClock
from service.storage.settle_plan import plan_settlements

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from redis.asyncio import Redis

    from deltaloom.messages import ModerationAlert
    from handlers.core.context import Registers
    from handlers.core.identity import PartKey, StreamKey
    from service.keys import Keys
    from service.ports.commit import Commit
    from service.ports.instruments import Instruments
    from service.ports.storage import LoadedResponse, Settlement, Survey
    from service.settings import Settings
    from service.storage.client.direct import DirectConnection, DirectConnections
    from service.storage.commit_plan import CommitPlan
    from service.storage.replies import CommitReply

_OPENINGS_AT_ONCE = 500
"""Maximum parts whose context is read in one call, so that it blocks the server only for some 10 ms."""

_REGISTER_NAMES = msgspec.msgpack.encode(list(REGISTERS))
"""Names of the registers' fields in a state, encoded for opening.lua."""

CONFIRM_MS = 1000
"""Timeout in milliseconds of one WAIT or WAITAOF, which is retried."""

_VERIFIED_FOR = 1.0
"""Seconds for which commits over one connection need not ask for the server's replication id again."""


class _Verified(NamedTuple):
    """A connection over which a commit has read the known replication id."""

    connection: DirectConnection
    until: float
    """Monotonic time in seconds at which it must be read again."""


class RedisStorage:
    """Implementation of `service.ports.storage.Storage` in Redis.

    Args:
        client: client of the server.
        keys: keys of the partition.
        settings: settings of the worker.
        clock: clock of the server, which all partitions on it may share; None for a new one.
        direct: connections over which the scripts are called; None for those of `client`.
        instruments: count the calls and what they have written.
    """

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        settings: Settings,
        clock: ServerClock | None = None,
        direct: DirectConnections | None = None,
        instruments: Instruments = OFF,
    ) -> None:
        self._client = client
        self._instruments = instruments
        self._direct = direct
        self._verified: _Verified | None = None
        self._group = ConsumerGroup(client, keys, settings.consumer)
        self._keys = keys
        self._settings = settings
        self._commit_script = scripts.Script(client, "commit", direct)
        self._settle_script = scripts.Script(client, "settle", direct)
        self._survey_script = scripts.Script(client, "survey", direct)
        self._load_script = scripts.Script(client, "load", direct)
        self._loader = ResponseLoader(client, self._load_script, keys)
        self._opening_script = scripts.Script(client, "opening", direct)
        self._sent = SentStates()
        self._clock = clock or ServerClock()
        self._replication_id = ""
        """The replication id under which the cached data was sent; a failover or a restart changes it."""

    async def load_scripts(self) -> None:
        """Load the scripts of batches and sweeps on the partition's server, for a fast first batch.

        Otherwise the second batch could overtake the first one, and an opening alert would begin at the
        second word.
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

    async def _run_in_group(
        self,
        script: scripts.Script,
        keys: Sequence[str],
        args: Sequence[Any],
        only: DirectConnection | None = None,
    ) -> Any:
        """Run a script with the name of the consumer group before `args`, over `only` if that is given.

        Raises:
            StorageUnavailableError: the server is unavailable; or the group was missing and has been created
                again, so the call must be repeated.
        """
        async with self._group.recreating_group():
            return await script(keys, [GROUP, *args], only)

    async def _open_connection(self) -> DirectConnection | None:
        """Return the direct connection to the partition's server if one is open already, else None."""
        if self._direct is None:
            return None
        return await self._direct.open_to_server_of(self._keys.names.deltas)

    def _is_verified(self, connection: DirectConnection | None) -> bool:
        """Return whether a commit has read the known replication id over this connection, and just now.

        "Just now" is within `_VERIFIED_FOR`, because a server may become a replica and a master again without
        closing connections. Otherwise, a failover or a restart that changes the id breaks the connection.
        """
        verified = self._verified
        return (
            verified is not None and verified.connection is connection and time.monotonic() < verified.until
        )

    @property
    def replication_id(self) -> str:
        """The server's replication id at the last commit; empty before the first."""
        return self._replication_id

    @property
    def now_ms(self) -> int:
        """The estimated time of the server, in milliseconds since the epoch."""
        return self._clock.now_ms

    async def commit(self, commit: Commit, replication_id: str = "", *, whole: bool = False) -> Committed:
        """Store a batch's effects and acknowledge its entries, atomically, or say why nothing was written.

        Nothing was written if `stored` of the result is False. Data that this process has sent before is
        omitted, and sent again if the server lacks it. A commit may be passed again, for example after a lost
        reply.

        Args:
            commit: the batch, or a piece of one; only the last piece acknowledges the entries.
            replication_id: the replication id that the server must still have; empty for the one of the last
                commit.
            whole: True to commit even if that blocks the server for long. If False, such a commit is not
                sent, and `pieces` of the result is above 1.

        Raises:
            StorageUnavailableError: the server is unavailable. The commit may be stored all the same.
        """
        sent, expected_id = self._sent, replication_id or self._replication_id
        began = time.perf_counter()
        while True:
            now = time.monotonic()
            connection = await self._open_connection()
            verified = (
                connection if expected_id == self._replication_id and self._is_verified(connection) else None
            )
            plan = plan_commit(
                commit, sent, self._keys, self._settings, expected_id, now, verifies=verified is None
            )
            if not whole and plan.pieces > 1:
                by_response = plan.is_divisible and plan.pieces <= len(commit.responses)
                return Committed(pieces=plan.pieces, by_response=by_response)
            try:
                packed, *loaded = await self._run_in_group(
                    self._commit_script, plan.keys, plan.args, verified
                )
            except StorageUnavailableError:
                if verified is None:
                    raise
                self._verified = None
                continue
            if verified is None and connection is not None and await self._open_connection() is connection:
                self._verified = _Verified(connection, now + _VERIFIED_FOR)
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
            self._instruments.commit_took(time.perf_counter() - began)
        return committed

    def _lost_writes(self, surviving_entries: Sequence[int], replication_id: str) -> Committed:
        """Return the result of a commit that was refused because the server may have lost earlier writes.

        If the server's `replication_id` is new, remember it, and drop all cached data. `surviving_entries`
        has the indexes, from 0, of the batch's entries that the server still has.
        """
        self._verified = None
        if replication_id != self._replication_id:
            # A new cache: commits that are under way still record their data in the old one.
            self._sent, self._replication_id = SentStates(), replication_id
        return Committed(surviving_entries=surviving_entries, replication_id=replication_id)

    async def record_owners(self, owners: Mapping[bytes, StreamKey]) -> None:
        """Record which response each of these pending entries belongs to, by entry id.

        Texts of other responses then do not wait for the entries. `owners` must not be empty. The records of
        the partition expire together, one TTL of a state after the last call.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hset(self._keys.owners, mapping={entry: str(key) for entry, key in owners.items()})
        pipeline.pexpire(self._keys.owners, in_ms(self._settings.state_ttl))
        with unavailable_if_away(self._keys.owners):
            await pipeline.execute()

    async def confirm(self) -> None:
        """Wait until all earlier writes are on disk and on replicas, so far as the settings require it.

        Return at once if they require neither. WAIT and WAITAOF cover the writes of their own connection, so
        the client must have a single one.

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
        """Return the stored context of the parts' responses, by part, for opening alerts.

        The context is empty if the response is not stored. The value is None if the commit must not raise the
        part's alert: it was raised before, or the part is stored.
        """
        values_of_parts: list[list[bytes | None] | None] = []
        for first in range(0, len(parts), _OPENINGS_AT_ONCE):
            some = parts[first : first + _OPENINGS_AT_ONCE]
            with unavailable_if_away():
                values_of_parts += await self._opening_script(
                    keys=[self._keys.state(part.stream_key) for part in some],
                    args=[_REGISTER_NAMES, *(part.field for part in some)],
                )
        return {
            part: registers_of({}) if values is None else _registers_for_opening(*values)
            for part, values in zip(parts, values_of_parts, strict=True)
        }

    async def load(self, stream_keys: Sequence[StreamKey]) -> Sequence[LoadedResponse]:
        """Read these responses, each with the logs of its open parts; return them in the same order.

        A response that is not stored has an empty state.
        """
        found = await self._loader.load(stream_keys, self._sent)
        return [replies.loaded_from(key, *found[key]) for key in stream_keys]

    async def marked(self, stream_keys: Sequence[StreamKey]) -> Sequence[PartKey]:
        """Return the finished parts that the markers of these responses list, response by response.

        A response without a marker gives none: it is not over, or its marker has expired.
        """
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
        """Write finished texts and their alerts, once each; return the parts whose texts this call wrote.

        Nothing is written if the server's replication id is not `replication_id`, under which the responses
        were read. A part whose log has changed since is not written, nor those after it in its settlement.
        """
        began = time.perf_counter()
        plan = plan_settlements(settlements, replication_id, self._keys, self._settings)
        with unavailable_if_away():
            reply = replies.decode_settle(await self._settle_script(keys=plan.keys, args=plan.args))
        for settlement in settlements:
            if settlement.ended:
                self._sent.remove(settlement.stream_key)
        written = [settlements[s].closed[t] for s, t in reply.written]
        if self._instruments.on:
            texts = [each.message for each in written if isinstance(each, TextToWrite)]
            raised = _alerts_of(settlements, reply.raised) if reply.raised else []
            seconds = time.perf_counter() - began
            self._instruments.settled(seconds, texts, raised, reply.late, self.now_ms)
        return [each.part for each in written]

    async def set_aside(self, stream_key: StreamKey) -> None:
        """Remove a response from the open and the waiting ones, and count it as set aside.

        It is settled again only if more events come; its keys expire. A repeated call may count it twice.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.zrem(self._keys.waiting, str(stream_key))
        pipeline.zrem(self._keys.open, str(stream_key))
        pipeline.hincrby(self._keys.counts, SET_ASIDE, 1)
        with unavailable_if_away():
            await pipeline.execute()

    async def survey(self, idle_timeout_ms: int) -> Survey:
        """Return the responses that are ready, and those that have been idle for `idle_timeout_ms`.

        There are at most `commit_plan.MAX_RESPONSES` of each. Idle time ends at the oldest pending
        entry and, while entries are unread, at the last delivered one. So a backlog makes no response idle.
        `surplus` of the result is empty.
        """
        return await self._survey(idle_timeout_ms, commit_plan.MAX_RESPONSES, 0, 0)

    async def surplus(self, max_open: int, at_most: int | None = None) -> Survey:
        """Return a survey of only the surplus: of the open responses beyond `max_open`, those idle longest.

        `at_most` limits their number; None or 0 means `commit_plan.MAX_RESPONSES`, the highest limit. If more
        are beyond `max_open`, the survey has some that are consecutive by idle time, from a random one on.
        """
        return await self._survey(
            0, 0, max_open, min(at_most or commit_plan.MAX_RESPONSES, commit_plan.MAX_RESPONSES)
        )

    async def _survey(self, idle_timeout_ms: int, at_most: int, max_open: int, surplus: int) -> Survey:
        keys = [self._keys.names.deltas, self._keys.open, self._keys.waiting, self._keys.owners]
        place = random.random()  # noqa: S311 - no secret
        args = [idle_timeout_ms, at_most, commit_plan.STALLED_MS, max_open, place, surplus]
        reply = replies.decode_survey(await self._run_in_group(self._survey_script, keys, args))
        self._clock.observe(int(reply.now_ms))
        return replies.survey_from(reply)


def _registers_for_opening(
    alerted: bytes | None, status: bytes | None, *values: bytes | None
) -> Registers | None:
    """Return the registers that opening.lua read; None if the part's alert must not be raised now.

    `alerted` and `status` are the values of the state's fields `alerted:<part>` and `part:<part>`; if either
    is set, the alert must not be raised. `values` are those of the fields in `REGISTERS`, in the same order.
    """
    if alerted or status is not None:
        return None
    return registers_of(dict(zip(REGISTERS, values, strict=True)))


def _alerts_of(settlements: Sequence[Settlement], ids: Collection[str]) -> list[ModerationAlert]:
    """Return the alerts with these ids in the settlements, in the order of the ids.

    Raises:
        KeyError: no settlement has an alert with one of the ids.
    """
    alerts: dict[str, ModerationAlert] = {}
    for settlement in settlements:
        some: list[ModerationAlert | None] = [*settlement.contradictions.values()]
        if settlement.outcome is not None:
            some += settlement.outcome.alerts
        for text in settlement.texts:
            some += (text.opened, text.finished, text.contradicted)
        alerts |= {each.id: each for each in some if each is not None}
    return [alerts[each] for each in ids]


def _correct(sent: SentStates, plan: CommitPlan, reply: CommitReply) -> None:
    """Correct the cached data after a refused commit, so that the next plan has what this one lacked.

    Responses of which storage lacks data are removed from `sent`; logs near a limit are marked as large.
    """
    for response in reply.missing_data:
        sent.remove(plan.responses[response])
    for log, size in reply.refused_logs:
        part = plan.growing_parts[log]
        if size:
            sent.mark_large(part)
        else:
            sent.remove(part.stream_key)
