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
"""Maximum entries that one call of a script claims, adopts, renews or releases. `renew` and `leave` make
several calls if there are more."""

KEPT_FOR_RELAYS_MS = 25 * 3600 * 1000
"""Maximum age in ms to which alerts are kept, even beyond the retention, for a relay that has yet to deliver
them. It is an hour longer than the relay retries."""

TRIMMED_AT_ONCE = 10_000
"""Maximum entries trimmed from a stream in one call, which takes the server a few milliseconds."""

_CHARACTER_BYTES = 4
"""Maximum bytes of a UTF-8 character. The beginning of an entry is read with this many bytes more than
needed, so that it can be cut between two characters."""

LOOK_PATIENCE = 40.0
"""Seconds that `look_at` waits beyond the usual timeout, since a slow server takes long to copy a huge entry.
Together with the usual 5 s, they end before a batch counts as stuck."""

_MISSING_GROUP_REPLIES = ("NOGROUP", "ERR no such key", "no such key")

_decode_claim = msgspec.msgpack.Decoder(tuple[str, list[str], list[tuple[str, int]]]).decode
_decode_adopted = msgspec.msgpack.Decoder(list[tuple[str, int]]).decode


_ARCHIVED = 3
"""Number of outputs, the first ones of `Keys.outputs`, that keep entries until a group has acknowledged them:
texts, alerts and deliveries, which archivers read."""


class KeptFor(NamedTuple):
    """The result of trimming outputs that keep entries until a group has acknowledged them."""

    group: str
    bytes: int
    """Bytes of all outputs before the last trimming; 0, unmeasured, if no budget limits them."""
    behind: float
    """Age in seconds of the oldest entry that the group has yet to acknowledge; 0 if there is none."""
    lost: int
    """Upper bound of the number of entries that were trimmed although the group had yet to acknowledge them,
    since the outputs exceeded their budget."""


class ConsumerGroup:
    """The worker's consumer group on the input of one partition; implements `service.ports.storage.Group`.

    Any method may raise `StorageUnavailableError`. If a command fails because the group is missing, the
    method creates it again and raises this error, so it has to be called again.
    """

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
        """Create the group again if a command in the block finds it missing, as after FLUSHALL.

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

        A missing stream is created as well. Return False if the group exists already, else True.
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
        """Return the names of the consumers in the group; [] if it has none.

        A missing group is created again, and is an error, as in all methods.
        """
        async with self.recreating_group():
            infos = await self._client.xinfo_consumers(self._stream, GROUP)
        return [info["name"].decode() for info in infos]

    async def backlog(self) -> tuple[int | None, int]:
        """Return the numbers of unread and of pending entries.

        The first is None if the server cannot count them, as after XDEL. If the stream exists without the
        group, return (None, 0).
        """
        async with self.recreating_group():
            infos = await self._client.xinfo_groups(self._stream)
        mine = next((info for info in infos if info["name"] == GROUP.encode()), None)
        return (mine["lag"], mine["pending"]) if mine else (None, 0)

    async def claim(self, idle_ms: int, cursor: str) -> Claim:
        """Claim at most `MAX_ENTRIES` entries that any consumer has left idle for `idle_ms`.

        The search begins at `cursor`: `0-0` or the cursor of the previous claim. It may find no entry before
        the last page, after which the cursor is `0-0` again. Delivery counts stay unchanged. Entries that
        were trimmed while pending are no longer pending; they are counted as lost and reported.
        """
        async with self.recreating_group():
            reply = await self._scripts["claim"](
                keys=[self._stream, self._keys.counts],
                args=[GROUP, self._consumer, idle_ms, cursor, MAX_ENTRIES],
            )
        cursor, lost, claimed = _decode_claim(reply)
        return Claim(cursor, lost, dict(claimed))

    async def adopt(self, gone: str) -> dict[str, int]:
        """Claim at most `MAX_ENTRIES` pending entries of the stopped consumer `gone`.

        Return their delivery counts by id, which stay unchanged; an empty dict once no entry is left.
        """
        async with self.recreating_group():
            reply = await self._scripts["adopt"](
                keys=[self._stream], args=[GROUP, self._consumer, gone, MAX_ENTRIES]
            )
        return dict(_decode_adopted(reply))

    async def deliver(self, entry_ids: Sequence[str], deliveries: int) -> list[RawEntry]:
        """Deliver pending entries to this consumer, with `deliveries` as their new delivery count.

        Entries are taken from whichever consumer has them. Return them in the order of their ids, without
        those that were trimmed from the stream or are no longer pending. The count is set, not incremented,
        because redis-py retries a command whose reply was lost. Such a retry must not use up one of the
        deliveries after which an entry becomes a dead letter.
        """
        async with self.recreating_group():
            entries: list[tuple[bytes, dict[bytes, bytes] | None]] = await self._client.xclaim(  # type: ignore[assignment]  # typed for every option at once
                self._stream, GROUP, self._consumer, 0, list(entry_ids), retrycount=deliveries
            )
        raw = [_raw(entry_id, fields) for entry_id, fields in entries if fields is not None]
        return sorted(raw, key=lambda entry: EntryId.parse(entry.id.decode()))

    async def look_at(self, entry_id: str, at_most: int) -> RawEntry | None:
        """Read an entry, pending or not, without delivering it.

        Return None if it does not exist. If its names and values have more than `at_most` bytes, return a
        `Beginning` with its first fields, of about this size. The reply may take `LOOK_PATIENCE` longer than
        usual, and comes over a connection of its own, so it holds up no other command.
        """
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
        """Reset the idle time of entries that are still pending for this consumer; ignore the others."""
        ids = list(entry_ids)
        for first in range(0, len(ids), MAX_ENTRIES):
            some = ids[first : first + MAX_ENTRIES]
            async with self.recreating_group():
                await self._scripts["renew"](keys=[self._stream], args=[GROUP, self._consumer, *some])

    async def leave(self) -> int:
        """Release this consumer's pending entries, so that other workers can claim them at once.

        Until then they stay pending for this consumer, which stays in the group. A consumer that has none is
        removed instead. Return the number of released entries.
        """
        left, more, first = 0, MAX_ENTRIES, "-"
        while more == MAX_ENTRIES:
            async with self.recreating_group():
                more, last = await self._scripts["leave"](
                    keys=[self._stream], args=[GROUP, self._consumer, MAX_ENTRIES, first]
                )
            left, first = left + more, f"({last.decode()}"
        return left

    async def remove_idle_consumers(self, idle_ms: int) -> list[str]:
        """Remove other consumers that are idle for `idle_ms` and have no pending entry; return their names.

        Also reset the idle time of this consumer, so that other workers do not remove it, or create it if it
        is missing.
        """
        async with self.recreating_group():
            removed: list[bytes] = await self._scripts["remove_idle_consumers"](
                keys=[self._stream], args=[GROUP, idle_ms, self._consumer]
            )
        return [name.decode() for name in removed]

    async def trim(self, retention_ms: int) -> int:
        """Trim the input up to the first entry that any group needs, and outputs by their age.

        A group needs its unread and its pending entries. The server trims in blocks, so some entries stay
        longer. An input without groups is not trimmed. Entries of outputs are trimmed once they are older
        than `retention_ms`; alerts that a relay has yet to deliver, once they are also older than
        `KEPT_FOR_RELAYS_MS`. Return the number of entries trimmed from the input.
        """
        trimmed, _ = await self._trim(self._keys.outputs, retention_ms)
        return trimmed

    async def trim_for(self, group: str, retention_ms: int, budget: int | None) -> KeptFor:
        """Trim input and outputs as `trim` does, but keep texts, alerts and deliveries that `group` needs.

        It needs those that it has yet to acknowledge, whatever their age.

        Args:
            group: name of the group; if a stream has no such group, all its entries are kept.
            retention_ms: maximum age of other entries.
            budget: maximum bytes of all outputs; above it, nothing is kept for the group. None for no limit.
        """
        _, kept = await self._trim(self._keys.outputs, retention_ms, group, budget or 0)
        return kept

    async def trim_input(self) -> int:
        """Trim the input up to the first entry that any group needs, and no output.

        Return the number of entries trimmed.
        """
        trimmed, _ = await self._trim([], 0)
        return trimmed

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
