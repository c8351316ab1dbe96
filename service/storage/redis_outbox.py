"""The outbox of a destination in Redis: a consumer group on each partition's alerts, and a lease."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, cast

from redis import exceptions

from deltaloom.messages import SCHEMA
from handlers.core.identity import EntryId
from service.keys import RelayKeys
from service.ports.outbox import RELAY_PREFIX, EntryRef, Page, PendingAlert, SavedDigest
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime
    from typing import Any, Literal

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions
    from service.ports.outbox import Failure

PAGE = 100
"""Maximum entries read in one call; with long texts they are a few megabytes."""

DIGESTS_TTL = 2 * 86400
"""TTL of the digests in seconds, from the last save; longer than an alert can be pending."""


def consumer_group_of(destination: str) -> str:
    """Return the name of a destination's consumer group."""
    return f"{RELAY_PREFIX}{destination}"


class DestinationGroup:
    """A destination's consumer group on the alerts of one partition."""

    def __init__(self, client: Redis, stream: str, destination: str) -> None:
        self._client = client
        self._stream = stream
        self._group = consumer_group_of(destination)

    async def ensure(self, begin: Literal["now", "all"] = "all") -> None:
        """Create the group, unless it exists.

        Args:
            begin: `now` to begin at the end of the stream, `all` at its beginning. The reading client
                creates a missing group again with `all`: its stream was deleted too, as a rule.
        """
        with unavailable_if_away(self._stream):
            try:
                first = "$" if begin == "now" else "0"
                await self._client.xgroup_create(self._stream, self._group, id=first, mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise


class RedisOutbox:
    """Implementation of `service.ports.outbox.Outbox` in Redis."""

    def __init__(self, client: Redis, partitions: Partitions, destination: str) -> None:
        self._client = client
        self._destination = destination
        self._group = consumer_group_of(destination)
        self._keys = RelayKeys(partitions.all[0], destination)
        self._undelivered = {names.alerts: names.undelivered for names in partitions.all}
        self._give_up = scripts.Script(client, "give_up")

    async def pending_page(
        self, stream: str, after: EntryId, before: EntryId | None, idle_ms: int = 0
    ) -> Page:
        """Return a page of pending alerts: see `service.ports.outbox.Outbox.pending_page`."""
        last = "+" if before is None else f"({before}"
        with unavailable_if_away(stream):
            try:
                reply = await self._client.xpending_range(
                    stream, self._group, min=f"({after}", max=last, count=PAGE, idle=idle_ms or None
                )
            except exceptions.ResponseError as error:
                if not _is_missing_group(error):
                    raise
                reply = []  # the server was flushed; the reader creates the group again
        pending = cast("list[dict[str, bytes]]", reply)
        refs = [EntryRef(stream, EntryId.parse(each["message_id"].decode())) for each in pending]
        entries = await self._existing(refs)
        there = {entry.ref for entry in entries}
        lost = [ref for ref in refs if ref not in there]
        await self.acknowledge(lost)
        return Page(entries, refs[-1].id if refs else after, len(refs) == PAGE, len(lost))

    async def still_pending(self, refs: Sequence[EntryRef]) -> list[PendingAlert]:
        """Return the alerts among these entries that are still pending."""
        pipeline = self._client.pipeline(transaction=False)
        for ref in refs:
            pipeline.xpending_range(ref.stream, self._group, min=str(ref.id), max=str(ref.id), count=1)
        with unavailable_if_away():
            replies = await pipeline.execute() if refs else []
        return await self._existing([ref for ref, reply in zip(refs, replies, strict=True) if reply])

    async def _existing(self, refs: Sequence[EntryRef]) -> list[PendingAlert]:
        """Return the alerts among these entries that the streams still have."""
        pipeline = self._client.pipeline(transaction=False)
        for ref in refs:
            pipeline.xrange(ref.stream, str(ref.id), str(ref.id))
        with unavailable_if_away():
            replies = await pipeline.execute() if refs else []
        return [
            PendingAlert(ref, reply[0][1].get(b"__data__"))
            for ref, reply in zip(refs, replies, strict=True)
            if reply
        ]

    async def acknowledge(self, refs: Collection[EntryRef]) -> None:
        """Acknowledge alerts that were delivered, or that this destination does not get."""
        for stream, some in _by_stream(refs):
            with unavailable_if_away(stream):
                await self._client.xack(stream, self._group, *(str(ref.id) for ref in some))

    async def give_up(self, ref: EntryRef, failure: Failure) -> None:
        """Copy an alert to the undelivered alerts and acknowledge it, atomically and once."""
        fields = {
            "schema": str(SCHEMA),
            "source": self._keys.names.prefix,
            "destination": self._destination,
            "reason": failure.reason,
            "answer": failure.answer,
            "attempts": str(failure.attempts),
            "failed_at": failure.failed_at.isoformat(timespec="milliseconds"),
            "entry_id": str(ref.id),
        }
        added = [part for field in fields.items() for part in field]
        with unavailable_if_away():
            await self._give_up(
                keys=[ref.stream, self._undelivered[ref.stream]],
                args=[self._group, str(ref.id), *added],
            )

    async def digests(self) -> dict[str, SavedDigest]:
        """Return the saved digests, by id."""
        with unavailable_if_away(self._keys.digests):
            saved = cast("dict[bytes, bytes]", await self._client.hgetall(self._keys.digests))
        return {digest_id.decode(): _digest(written) for digest_id, written in saved.items()}

    async def save_digest(self, digest_id: str, digest: SavedDigest) -> None:
        """Save a digest."""
        refs = [[ref.stream, str(ref.id)] for ref in digest.refs]
        # `places` is the stored name of `refs`.
        written = json.dumps({"confirmed": digest.confirmed, "places": refs})
        with unavailable_if_away():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hset(self._keys.digests, digest_id, written)
            pipeline.expire(self._keys.digests, DIGESTS_TTL)
            await pipeline.execute()

    async def delete_digest(self, digest_id: str) -> None:
        """Delete a saved digest."""
        with unavailable_if_away(self._keys.digests):
            await self._client.hdel(self._keys.digests, digest_id)

    async def disabled_answer(self) -> str | None:
        """Return the answer with which the destination disabled itself, or None if it is enabled."""
        with unavailable_if_away(self._keys.disabled):
            noted = await self._client.hget(self._keys.disabled, self._destination)
        return None if noted is None else str(json.loads(noted)["answer"])

    async def disable(self, answer: str, at: datetime) -> None:
        """Mark the destination as disabled until an operator enables it."""
        noted = json.dumps({"answer": answer, "at": at.isoformat(timespec="milliseconds")})
        with unavailable_if_away():
            await self._client.hset(self._keys.disabled, self._destination, noted)

    async def enable(self) -> bool:
        """Enable the destination; return whether it was disabled."""
        with unavailable_if_away():
            return bool(await self._client.hdel(self._keys.disabled, self._destination))


class RedisLease:
    """Implementation of `service.ports.outbox.LeaseStore` in Redis.

    Args:
        client: client of the server.
        partitions: partitions with the alerts.
        destination: name of the destination.
        owner: unique name of this process.
    """

    def __init__(self, client: Redis, partitions: Partitions, destination: str, owner: str) -> None:
        self._key = RelayKeys(partitions.all[0], destination).lease
        self._owner = owner
        self._acquire = scripts.Script(client, "acquire")
        self._release = scripts.Script(client, "release")

    async def acquire(self, ttl_ms: int) -> bool:
        """Acquire or extend the lease for `ttl_ms`; return whether this process holds it."""
        with unavailable_if_away():
            return bool(await self._acquire(keys=[self._key], args=[self._owner, ttl_ms]))

    async def release(self) -> None:
        """Release the lease, if this process holds it."""
        with unavailable_if_away():
            await self._release(keys=[self._key], args=[self._owner])


def _by_stream(refs: Iterable[EntryRef]) -> Iterable[tuple[str, Iterable[EntryRef]]]:
    return groupby(sorted(refs), key=lambda ref: ref.stream)


def _is_missing_group(error: Exception) -> bool:
    return str(error).startswith("NOGROUP")


def _digest(written: bytes) -> SavedDigest:
    saved: dict[str, Any] = json.loads(written)
    refs = tuple(EntryRef(stream, EntryId.parse(entry_id)) for stream, entry_id in saved["places"])
    return SavedDigest(refs, bool(saved["confirmed"]))
