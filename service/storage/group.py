"""The consumer group: who holds which entries, what was left behind, what nobody needs any more."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
from redis import exceptions

from deltaloom.streams import GROUP
from handlers.core.identity import EntryId
from service.ports.outbox import RELAY_PREFIX
from service.ports.storage import Beginning, Claim, RawEntry, StorageUnavailableError
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from redis.asyncio import Redis

    from service.keys import Keys

AT_MOST = 500
"""Entries taken over at once."""

OWED_MS = 25 * 3600 * 1000
"""Milliseconds that an alert is kept for a relay: an hour longer than it tries at most."""

TRIMMED_AT_ONCE = 10_000
"""Entries of a stream that are trimmed in one call: it takes the server a few milliseconds."""

_A_CHARACTER = 4
"""Bytes of a character at most: whoever keeps so many bytes of a text can end with a whole one."""

_ANSWERED_WITHOUT_IT = ("NOGROUP", "ERR no such key", "no such key")

_decode_claim = msgspec.msgpack.Decoder(tuple[str, list[str], list[tuple[str, int]]]).decode
_decode_inherit = msgspec.msgpack.Decoder(list[tuple[str, int]]).decode


class ConsumerGroup:
    """The worker's group on the input of one partition: see `service.ports.storage.Group`."""

    def __init__(self, client: Redis, keys: Keys, consumer: str) -> None:
        self._client = client
        self._keys = keys
        self._stream = keys.names.deltas
        self._consumer = consumer
        self._scripts = {
            name: scripts.Script(client, name)
            for name in ("claim", "inherit", "keep", "leave", "peek", "retire", "trim")
        }

    @asynccontextmanager
    async def there(self) -> AsyncIterator[None]:
        """Ask for what needs the group: if it is gone (FLUSHALL), make it again, and ask to try again."""
        try:
            with unavailable_if_away(self._stream):
                yield
        except exceptions.ResponseError as error:
            if not str(error).startswith(_ANSWERED_WITHOUT_IT):
                raise
        else:
            return
        await self.ensure()
        raise StorageUnavailableError(
            "NOGROUP", f"the group {GROUP} of {self._stream} was gone, and is made again"
        )

    async def ensure(self) -> None:
        """Create the group at the stream's beginning: what was published before is read too."""
        with unavailable_if_away(self._stream):
            try:
                await self._client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def consumers(self) -> list[str]:
        """The names in the group."""
        async with self.there():
            infos = await self._client.xinfo_consumers(self._stream, GROUP)
        return [info["name"].decode() for info in infos]

    async def claim(self, idle_ms: int, cursor: str) -> Claim:
        """Take over entries that nobody has acknowledged for `idle_ms`."""
        async with self.there():
            reply = await self._scripts["claim"](
                keys=[self._stream, self._keys.counts],
                args=[GROUP, self._consumer, idle_ms, cursor, AT_MOST],
            )
        cursor, lost, claimed = _decode_claim(reply)
        return Claim(cursor, lost, dict(claimed))

    async def inherit(self, gone: str) -> dict[str, int]:
        """Take over what a consumer that is gone left pending; with how often each was delivered."""
        async with self.there():
            reply = await self._scripts["inherit"](
                keys=[self._stream], args=[GROUP, self._consumer, gone, AT_MOST]
            )
        return dict(_decode_inherit(reply))

    async def deliver(self, entry_ids: Sequence[str], deliveries: int) -> list[RawEntry]:
        """Give this consumer entries it holds, as their delivery of this number; in the order of their ids.

        The number is set, not added to: redis-py sends a command again when its reply is lost, and that
        must not bring an innocent entry nearer to its last delivery.
        """
        async with self.there():
            entries: list[tuple[bytes, dict[bytes, bytes] | None]] = await self._client.xclaim(  # type: ignore[assignment]  # typed for every option at once
                self._stream, GROUP, self._consumer, 0, list(entry_ids), retrycount=deliveries
            )
        raw = [_raw(entry_id, fields) for entry_id, fields in entries if fields is not None]
        return sorted(raw, key=lambda entry: EntryId.parse(entry.id.decode()))

    async def look_at(self, entry_id: str, at_most: int) -> RawEntry | None:
        """Read an entry without delivering it, or the beginning of one that has more than `at_most` bytes."""
        with unavailable_if_away(self._stream):
            reply = await self._scripts["peek"](keys=[self._stream], args=[entry_id, at_most + _A_CHARACTER])
        if reply is None:
            return None
        size, *fields = reply
        if size > at_most:
            return Beginning.of(entry_id.encode(), fields, size)
        return RawEntry(entry_id.encode(), fields)

    async def keep(self, entry_ids: Collection[bytes]) -> None:
        """Say that this consumer still works on these entries; of tens of thousands, some at a time."""
        ids = list(entry_ids)
        for first in range(0, len(ids), AT_MOST):
            some = ids[first : first + AT_MOST]
            async with self.there():
                await self._scripts["keep"](keys=[self._stream], args=[GROUP, self._consumer, *some])

    async def leave(self) -> int:
        """Say good-bye: what this consumer still holds may be taken over at once. Returns how many."""
        left, more, first = 0, AT_MOST, "-"
        while more == AT_MOST:
            async with self.there():
                more, last = await self._scripts["leave"](
                    keys=[self._stream], args=[GROUP, self._consumer, AT_MOST, first]
                )
            left, first = left + more, f"({last.decode()}"
        return left

    async def retire(self, idle_ms: int) -> list[str]:
        """Remove consumers that have not been heard of for `idle_ms` and hold nothing."""
        async with self.there():
            removed: list[bytes] = await self._scripts["retire"](keys=[self._stream], args=[GROUP, idle_ms])
        return [name.decode() for name in removed]

    async def trim(self, retention_ms: int) -> int:
        """Trim the input behind what every group has acknowledged, the outputs by age."""
        names = self._keys.names
        keys = [self._stream, names.assembled, names.alerts, names.dead_letters, names.undelivered]
        trimmed = 0
        while True:
            async with self.there():
                reply: list[int] = await self._scripts["trim"](
                    keys=keys, args=[retention_ms, TRIMMED_AT_ONCE, RELAY_PREFIX, OWED_MS]
                )
            of_input, of_outputs = reply
            trimmed += of_input
            if max(of_input, of_outputs) < TRIMMED_AT_ONCE // 2:  # the server trims by whole nodes
                return trimmed


def _raw(entry_id: bytes, fields: Mapping[bytes, bytes]) -> RawEntry:
    return RawEntry(entry_id, [value for field in fields.items() for value in field])
