"""What is owed to a destination, in Redis: a consumer group on each partition's alerts, and a lease."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, cast

from redis import exceptions

from deltaloom.messages import SCHEMA
from handlers.core.identity import EntryId
from service.keys import RelayKeys
from service.ports.outbox import RELAY_PREFIX, KeptDigest, Owed, Page, Place
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
"""Entries looked at in one call: of long texts they are some megabytes."""

DIGESTS_TTL = 2 * 86400
"""Seconds that digests are kept after the last one was: longer than any alert is owed."""


def group_of(destination: str) -> str:
    """The consumer group of a destination."""
    return f"{RELAY_PREFIX}{destination}"


class DestinationGroup:
    """A destination's consumer group on the alerts of one partition, as what reads them needs it."""

    def __init__(self, client: Redis, stream: str, destination: str) -> None:
        self._client = client
        self._stream = stream
        self._group = group_of(destination)

    async def ensure(self, begin: Literal["now", "all"] = "all") -> None:
        """Make the group, if it is not there: at the stream's end, or at its beginning.

        At the beginning also where it is made again: then the stream is gone too, and all of it is new.
        """
        with unavailable_if_away(self._stream):
            try:
                first = "$" if begin == "now" else "0"
                await self._client.xgroup_create(self._stream, self._group, id=first, mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise


class RedisOutbox:
    """See `service.ports.outbox.Outbox`."""

    def __init__(self, client: Redis, partitions: Partitions, destination: str) -> None:
        self._client = client
        self._destination = destination
        self._group = group_of(destination)
        self._keys = RelayKeys(partitions.all[0], destination)
        self._undelivered = {names.alerts: names.undelivered for names in partitions.all}
        self._give_up = scripts.Script(client, "give_up")

    async def owed(self, stream: str, after: EntryId, before: EntryId | None, idle_ms: int = 0) -> Page:
        """What is owed between two entries, both left out (None: to the end), and was read so long ago."""
        last = "+" if before is None else f"({before}"
        with unavailable_if_away(stream):
            try:
                reply = await self._client.xpending_range(
                    stream, self._group, min=f"({after}", max=last, count=PAGE, idle=idle_ms or None
                )
            except exceptions.ResponseError as error:
                if not _says_there_is_no_group(error):
                    raise
                reply = []  # flushed; whoever reads makes it again
        pending = cast("list[dict[str, bytes]]", reply)
        places = [Place(stream, EntryId.parse(each["message_id"].decode())) for each in pending]
        entries = await self._look_at(places)
        there = {entry.place for entry in entries}
        lost = [place for place in places if place not in there]
        await self.settle(lost)
        return Page(entries, places[-1].id if places else after, len(places) == PAGE, len(lost))

    async def still_owed(self, places: Sequence[Place]) -> list[Owed]:
        """Of these, what is owed."""
        pipeline = self._client.pipeline(transaction=False)
        for place in places:
            pipeline.xpending_range(place.stream, self._group, min=str(place.id), max=str(place.id), count=1)
        with unavailable_if_away():
            replies = await pipeline.execute() if places else []
        return await self._look_at([place for place, reply in zip(places, replies, strict=True) if reply])

    async def _look_at(self, places: Sequence[Place]) -> list[Owed]:
        """Of these, what is there."""
        pipeline = self._client.pipeline(transaction=False)
        for place in places:
            pipeline.xrange(place.stream, str(place.id), str(place.id))
        with unavailable_if_away():
            replies = await pipeline.execute() if places else []
        return [
            Owed(place, reply[0][1].get(b"__data__"))
            for place, reply in zip(places, replies, strict=True)
            if reply
        ]

    async def settle(self, places: Collection[Place]) -> None:
        """They are owed no more: delivered, or not meant for this destination."""
        for stream, some in _by_stream(places):
            with unavailable_if_away(stream):
                await self._client.xack(stream, self._group, *(str(place.id) for place in some))

    async def give_up(self, place: Place, failure: Failure) -> None:
        """Put an alert among the undelivered and owe it no more, in one step and once."""
        fields = {
            "schema": str(SCHEMA),
            "source": self._keys.names.prefix,
            "destination": self._destination,
            "reason": failure.reason,
            "answer": failure.answer,
            "attempts": str(failure.attempts),
            "failed_at": failure.failed_at.isoformat(timespec="milliseconds"),
            "entry_id": str(place.id),
        }
        added = [part for field in fields.items() for part in field]
        with unavailable_if_away():
            await self._give_up(
                keys=[place.stream, self._undelivered[place.stream]],
                args=[self._group, str(place.id), *added],
            )

    async def digests(self) -> dict[str, KeptDigest]:
        """The digests that are kept, by their ids."""
        with unavailable_if_away(self._keys.digests):
            kept = cast("dict[bytes, bytes]", await self._client.hgetall(self._keys.digests))
        return {digest_id.decode(): _digest(written) for digest_id, written in kept.items()}

    async def keep_digest(self, digest_id: str, digest: KeptDigest) -> None:
        """Keep a digest."""
        places = [[place.stream, str(place.id)] for place in digest.places]
        written = json.dumps({"confirmed": digest.confirmed, "places": places})
        with unavailable_if_away():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hset(self._keys.digests, digest_id, written)
            pipeline.expire(self._keys.digests, DIGESTS_TTL)
            await pipeline.execute()

    async def drop_digest(self, digest_id: str) -> None:
        """Keep it no longer."""
        with unavailable_if_away(self._keys.digests):
            await self._client.hdel(self._keys.digests, digest_id)

    async def gone(self) -> str | None:
        """What the destination answered when it said that it is no more; None: it did not."""
        with unavailable_if_away(self._keys.gone):
            noted = await self._client.hget(self._keys.gone, self._destination)
        return None if noted is None else str(json.loads(noted)["answer"])

    async def note_gone(self, answer: str, at: datetime) -> None:
        """Note that it is no more, until an operator says otherwise."""
        noted = json.dumps({"answer": answer, "at": at.isoformat(timespec="milliseconds")})
        with unavailable_if_away():
            await self._client.hset(self._keys.gone, self._destination, noted)

    async def enable(self) -> bool:
        """It is there again; whether it had been noted as gone."""
        with unavailable_if_away():
            return bool(await self._client.hdel(self._keys.gone, self._destination))


class RedisLease:
    """See `service.ports.outbox.LeaseStore`.

    Args:
        client: of the server.
        partitions: whose alerts are sent.
        destination: where to.
        owner: who holds it; unlike all others.
    """

    def __init__(self, client: Redis, partitions: Partitions, destination: str, owner: str) -> None:
        self._key = RelayKeys(partitions.all[0], destination).lease
        self._owner = owner
        self._hold = scripts.Script(client, "hold")
        self._release = scripts.Script(client, "release")

    async def hold(self, ttl_ms: int) -> bool:
        """Take the lease, or keep it for so much longer; whether it is this process's."""
        with unavailable_if_away():
            return bool(await self._hold(keys=[self._key], args=[self._owner, ttl_ms]))

    async def release(self) -> None:
        """Let go of it, if it is this process's."""
        with unavailable_if_away():
            await self._release(keys=[self._key], args=[self._owner])


def _by_stream(places: Iterable[Place]) -> Iterable[tuple[str, Iterable[Place]]]:
    return groupby(sorted(places), key=lambda place: place.stream)


def _says_there_is_no_group(error: Exception) -> bool:
    return str(error).startswith("NOGROUP")


def _digest(written: bytes) -> KeptDigest:
    kept: dict[str, Any] = json.loads(written)
    places = tuple(Place(stream, EntryId.parse(entry_id)) for stream, entry_id in kept["places"])
    return KeptDigest(places, bool(kept["confirmed"]))
