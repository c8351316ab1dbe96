"""The worker's consumer group: claiming, delivering, renewing and releasing entries, and trimming streams."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from redis import exceptions

from deltaloom.streams import GROUP
from handlers.core.identity import EntryId
from service.ports.outbox import RELAY_PREFIX
from service.ports.storage import Beginning, Claim, RawEntry, StorageUnavailableError
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.client.direct import DirectConnections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from redis.asyncio import Redis

    from service.keys import Keys

MAX_ENTRIES = 500
"""Maximum entries in one call."""

KEPT_FOR_RELAYS_MS = 25 * 3600 * 1000
"""Milliseconds for which an alert is kept for a relay: an hour longer than the relay retries."""

TRIMMED_AT_ONCE = 10_000
"""Maximum entries trimmed from a stream in one call, which takes the server a few milliseconds."""

_CHARACTER_BYTES = 4
"""Maximum bytes of a UTF-8 character. The beginning of an entry is read with this many bytes more than
needed, so that it can be cut between two characters."""

LOOK_PATIENCE = 40.0
"""Seconds beyond the usual timeout for a look at an entry, since a slow server takes long to copy a huge one.
Together with the usual 5 s, they end before a batch counts as stuck."""

_MISSING_GROUP_REPLIES = ("NOGROUP", "ERR no such key", "no such key")

_decode_claim = msgspec.msgpack.Decoder(tuple[str, list[str], list[tuple[str, int]]]).decode
_decode_adopted = msgspec.msgpack.Decoder(list[tuple[str, int]]).decode


_ARCHIVED = 3
"""Number of outputs that wait for a group: texts, alerts and deliveries, which archivers read."""


class KeptFor(NamedTuple):
    """The outputs of a partition that wait for a group."""

    group: str
    bytes: int
    """Bytes of all outputs; 0 if nothing limits them."""
    behind: float
    """Seconds since the oldest entry that the group has yet to acknowledge; 0 if there is none."""
    lost: int
    """Maximum number of such entries that were trimmed, since the outputs were over their budget."""


class ConsumerGroup:
    """The worker's consumer group on the input of one partition; implements `service.ports.storage.Group`."""

    def __init__(self, client: Redis, keys: Keys, consumer: str) -> None:
        self._client = client
        self._keys = keys
        self._stream = keys.names.deltas
        self._consumer = consumer
        self._scripts = {
            name: scripts.Script(client, name)
            for name in ("claim", "adopt", "renew", "leave", "peek", "remove_idle_consumers", "trim")
        }

    @asynccontextmanager
    async def recreating_group(self) -> AsyncIterator[None]:
        """Create the group again if a command in this block fails because it is missing (FLUSHALL).

        Raises:
            StorageUnavailableError: the group was missing, so the command must be retried; or the server is
                unavailable.
        """
        try:
            with unavailable_if_away(self._stream):
                yield
        except exceptions.ResponseError as error:
            if not str(error).startswith(_MISSING_GROUP_REPLIES):
                raise
        else:
            return
        await self.ensure()
        raise StorageUnavailableError(
            "NOGROUP", f"the group {GROUP} of {self._stream} was missing and has been created again"
        )

    async def ensure(self) -> bool:
        """Create the group at the beginning of the stream, so that earlier entries are read too.

        Return False if the group exists already.
        """
        with unavailable_if_away(self._stream):
            try:
                await self._client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
                return False
        return True

    async def consumers(self) -> list[str]:
        """Return the names of the consumers in the group."""
        async with self.recreating_group():
            infos = await self._client.xinfo_consumers(self._stream, GROUP)
        return [info["name"].decode() for info in infos]

    async def backlog(self) -> tuple[int | None, int]:
        """Return the lag, which is None if the server does not know it, and the number of pending entries."""
        async with self.recreating_group():
            infos = await self._client.xinfo_groups(self._stream)
        mine = next((info for info in infos if info["name"] == GROUP.encode()), None)
        return (mine["lag"], mine["pending"]) if mine else (None, 0)

    async def claim(self, idle_ms: int, cursor: str) -> Claim:
        """Claim entries that have been idle for `idle_ms`; see `service.ports.storage.Group.claim`."""
        async with self.recreating_group():
            reply = await self._scripts["claim"](
                keys=[self._stream, self._keys.counts],
                args=[GROUP, self._consumer, idle_ms, cursor, MAX_ENTRIES],
            )
        cursor, lost, claimed = _decode_claim(reply)
        return Claim(cursor, lost, dict(claimed))

    async def adopt(self, gone: str) -> dict[str, int]:
        """Claim pending entries of the stopped consumer `gone`; return their delivery counts by id."""
        async with self.recreating_group():
            reply = await self._scripts["adopt"](
                keys=[self._stream], args=[GROUP, self._consumer, gone, MAX_ENTRIES]
            )
        return dict(_decode_adopted(reply))

    async def deliver(self, entry_ids: Sequence[str], deliveries: int) -> list[RawEntry]:
        """Deliver pending entries to this consumer and set their delivery count; return them in id order.

        The count is set, not incremented, because redis-py retries a command whose reply was lost. Such a
        retry must not use up one of the deliveries after which an entry becomes a dead letter. Entries that
        were trimmed from the stream are not returned.
        """
        async with self.recreating_group():
            entries: list[tuple[bytes, dict[bytes, bytes] | None]] = await self._client.xclaim(  # type: ignore[assignment]  # typed for every option at once
                self._stream, GROUP, self._consumer, 0, list(entry_ids), retrycount=deliveries
            )
        raw = [_raw(entry_id, fields) for entry_id, fields in entries if fields is not None]
        return sorted(raw, key=lambda entry: EntryId.parse(entry.id.decode()))

    async def look_at(self, entry_id: str, at_most: int) -> RawEntry | None:
        """Read an entry without delivering it; see `service.ports.storage.Group.look_at`."""
        own = DirectConnections(self._client)  # a reply that takes long holds up no other command
        try:
            with unavailable_if_away(self._stream):
                connection = await own.to_server_of(self._stream)
                connection.patience = LOOK_PATIENCE
                reply = await self._scripts["peek"](
                    keys=[self._stream], args=[entry_id, at_most + _CHARACTER_BYTES], only=connection
                )
        finally:
            own.close()
        if reply is None:
            return None
        size, *fields = reply
        if size > at_most:
            return Beginning.of(entry_id.encode(), fields, size)
        return RawEntry(entry_id.encode(), fields)

    async def renew(self, entry_ids: Collection[bytes]) -> None:
        """Reset the idle time of these pending entries, in calls of at most `MAX_ENTRIES` entries."""
        ids = list(entry_ids)
        for first in range(0, len(ids), MAX_ENTRIES):
            some = ids[first : first + MAX_ENTRIES]
            async with self.recreating_group():
                await self._scripts["renew"](keys=[self._stream], args=[GROUP, self._consumer, *some])

    async def leave(self) -> int:
        """Release this consumer's pending entries to other workers at once; return their number."""
        left, more, first = 0, MAX_ENTRIES, "-"
        while more == MAX_ENTRIES:
            async with self.recreating_group():
                more, last = await self._scripts["leave"](
                    keys=[self._stream], args=[GROUP, self._consumer, MAX_ENTRIES, first]
                )
            left, first = left + more, f"({last.decode()}"
        return left

    async def remove_idle_consumers(self, idle_ms: int) -> list[str]:
        """Remove other consumers that hold nothing and have been idle for `idle_ms`; return their names.

        This consumer counts as active from now on.
        """
        async with self.recreating_group():
            removed: list[bytes] = await self._scripts["remove_idle_consumers"](
                keys=[self._stream], args=[GROUP, idle_ms, self._consumer]
            )
        return [name.decode() for name in removed]

    async def trim(self, retention_ms: int) -> int:
        """Trim the input up to the first entry that a group needs, the outputs by age.

        Return the number of entries trimmed from the input.
        """
        trimmed, _ = await self._trim(self._outputs, retention_ms)
        return trimmed

    async def trim_for(self, group: str, retention_ms: int, budget: int | None) -> KeptFor:
        """Trim as `trim` does, but keep what a group of the outputs has yet to acknowledge.

        Args:
            group: name of the group; if a stream has no such group, all its entries are kept.
            retention_ms: maximum age of other entries.
            budget: bytes of all outputs beyond which the group is not waited for; None for no limit.
        """
        _, kept = await self._trim(self._outputs, retention_ms, group, budget or 0)
        return kept

    async def trim_input(self) -> int:
        """Trim the input as `trim` does, but no output; return the number of entries trimmed."""
        trimmed, _ = await self._trim([], 0)
        return trimmed

    @property
    def _outputs(self) -> list[str]:
        names = self._keys.names
        return [names.assembled, names.alerts, names.deliveries, names.dead_letters, names.undelivered]

    async def _trim(
        self, outputs: Sequence[str], retention_ms: int, group: str = "", budget: int = 0
    ) -> tuple[int, KeptFor]:
        trimmed = lost = 0
        args = [retention_ms, TRIMMED_AT_ONCE, RELAY_PREFIX, KEPT_FOR_RELAYS_MS, group, _ARCHIVED, budget]
        while True:
            async with self.recreating_group():
                reply: list[int] = await self._scripts["trim"](keys=[self._stream, *outputs], args=args)
            of_input, of_outputs, size, behind_ms, of_group = reply
            trimmed, lost = trimmed + of_input, lost + of_group
            if max(of_input, of_outputs) < TRIMMED_AT_ONCE // 2:  # the server trims whole nodes only
                return trimmed, KeptFor(group, size, behind_ms / 1000, lost)


def _raw(entry_id: bytes, fields: Mapping[bytes, bytes]) -> RawEntry:
    return RawEntry(entry_id, [value for field in fields.items() for value in field])
