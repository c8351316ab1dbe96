"""The outbox of a destination in Redis: a consumer group on each partition's alerts, and a lease."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, cast

import msgspec
from redis import exceptions

from deltaloom.messages import SCHEMA
from handlers.core.identity import EntryId
from service.keys import RelayKeys
from service.ports.deployment_figures import BacklogFigures
from service.ports.outbox import RELAY_PREFIX, Confirmation, EntryRef, Page, PendingAlert, SavedDigest
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.key_lease import KeyLease
from service.storage.pages import groups_of
from service.storage.records import entry_of, stamped
from service.storage.shared_calls import SharedCalls

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Any, Literal

    from redis.asyncio import Redis

    from deltaloom.messages import Delivery
    from deltaloom.streams import Partitions
    from service.ports.outbox import EndedDelivery, Failure

PAGE = 100
"""Maximum entries read in one call; with long texts they are a few megabytes."""

RECORDED_AT_ONCE = 100
"""Maximum deliveries that one call records."""

COUNTED = 1000
"""Maximum unread alerts of a stream that are counted one by one if the server does not know their number."""

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
        """Create the group, and the stream if it is missing. Do nothing if the group exists.

        Args:
            begin: first alerts that the destination gets: `now` for those added from now on, `all` for all in
                the stream. A group that has disappeared is created again with `all`: its stream was deleted
                too, as a rule.
        """
        with unavailable_if_away(self._stream):
            try:
                first = "$" if begin == "now" else "0"
                await self._client.xgroup_create(self._stream, self._group, id=first, mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise


class RedisOutbox:
    """Implementation of `service.ports.outbox.Outbox` in Redis: the pending alerts of one destination."""

    def __init__(self, client: Redis, partitions: Partitions, destination: str) -> None:
        self._client = client
        self._destination = destination
        self._group = consumer_group_of(destination)
        self._keys = RelayKeys(partitions.all[0], destination)
        self._names = {names.alerts: names for names in partitions.all}
        self._delivered = scripts.Script(client, "delivered")
        self._give_up = scripts.Script(client, "give_up")
        self._acknowledging: dict[str, SharedCalls[str, None]] = {}
        self._recording: dict[str, SharedCalls[EntryRef, EndedDelivery]] = {}

    async def pending_page(
        self, stream: str, after: EntryId, before: EntryId | None, idle_ms: int = 0
    ) -> Page:
        """Return the first `PAGE` pending alerts in a range, in the order of the stream.

        Alerts in the range that were trimmed from the stream are acknowledged and only counted. The page is
        empty if the group is missing.

        Args:
            stream: the stream of alerts.
            after: id after which the range begins, itself excluded.
            before: id before which the range ends, itself excluded; None for the end of the stream.
            idle_ms: minimum milliseconds since an alert was last read; others are left out. 0 for all.
        """
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
        """Return the alerts among these entries that are still pending, in the order of `refs`.

        Acknowledged entries are left out. Deleted entries are left out too, and stay pending.
        """
        pipeline = self._client.pipeline(transaction=False)
        for ref in refs:
            pipeline.xpending_range(ref.stream, self._group, min=str(ref.id), max=str(ref.id), count=1)
        with unavailable_if_away():
            replies = await pipeline.execute() if refs else []
        return await self._existing([ref for ref, reply in zip(refs, replies, strict=True) if reply])

    async def _existing(self, refs: Sequence[EntryRef]) -> list[PendingAlert]:
        """Return the alerts in those of these entries that exist, pending or not, in the order of `refs`."""
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

    async def backlog(self) -> BacklogFigures:
        """Return the number of alerts that the destination has still to get, and the time of the oldest.

        Unread and pending alerts of all partitions count.
        """
        return await backlog_of(self._client, list(self._names), self._group)

    async def acknowledge(self, refs: Collection[EntryRef]) -> None:
        """Acknowledge all these entries without recording a delivery.

        The caller passes alerts that the destination does not get, and deleted entries.
        """
        for stream, some in _by_stream(refs):
            if stream not in self._acknowledging:
                self._acknowledging[stream] = SharedCalls(partial(self._acknowledge_in, stream))
            await self._acknowledging[stream].process(dict.fromkeys(str(ref.id) for ref in some))

    async def _acknowledge_in(self, stream: str, ids: Iterable[str]) -> None:
        with unavailable_if_away(stream):
            await self._client.xack(stream, self._group, *ids)

    async def check_rights(self) -> None:
        """Check on all partitions that deliveries can be recorded, without writing anything.

        A relay that cannot record deliveries should not send.

        Raises:
            SetupError: the user lacks a right, or the key of the deliveries has another type.
        """
        for stream in self._names:
            await self._record(stream, [])

    async def record_delivered(self, ended: Sequence[EndedDelivery]) -> None:
        """Add the delivery of each alert and acknowledge the alert, in one step.

        Alerts that are no longer pending are skipped, so a repeated call adds no second delivery. If a
        call fails, it may have done some of the alerts.
        """
        for stream, of_stream in groupby(
            sorted(ended, key=lambda each: each.ref), lambda each: each.ref.stream
        ):
            if stream not in self._recording:
                self._recording[stream] = SharedCalls(partial(self._record_in, stream))
            await self._recording[stream].process({each.ref: each for each in of_stream})

    async def _record_in(self, stream: str, ended: Mapping[EntryRef, EndedDelivery]) -> None:
        some = list(ended.values())
        for first in range(0, len(some), RECORDED_AT_ONCE):
            await self._record(stream, some[first : first + RECORDED_AT_ONCE])

    async def _record(self, stream: str, ended: Iterable[EndedDelivery]) -> None:
        alerts = [part for each in ended for part in (str(each.ref.id), self._entry_of(each.delivery))]
        with unavailable_if_away():
            await self._delivered(keys=[stream, self._names[stream].deliveries], args=[self._group, *alerts])

    def _entry_of(self, delivery: Delivery) -> bytes:
        """Return the fields of a delivery's entry, as an array in MessagePack."""
        data = stamped(delivery, self._keys.names.prefix).model_dump_json()
        return msgspec.msgpack.encode(entry_of(delivery, data))

    async def give_up(self, ended: EndedDelivery, failure: Failure) -> None:
        """Copy an alert to the undelivered ones, record its delivery and acknowledge it, atomically.

        Do nothing if the alert is no longer pending, so that a repeated call adds no second copy. The copy
        has the alert's fields, and fields that describe the failure. If the alert was trimmed, the copy has
        only the latter.
        """
        ref = ended.ref
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
        names = self._names[ref.stream]
        with unavailable_if_away():
            await self._give_up(
                keys=[ref.stream, names.undelivered, names.deliveries],
                args=[self._group, str(ref.id), self._entry_of(ended.delivery), *added],
            )

    async def digests(self) -> dict[str, SavedDigest]:
        """Return the saved digests, by id."""
        with unavailable_if_away(self._keys.digests):
            saved = cast("dict[bytes, bytes]", await self._client.hgetall(self._keys.digests))
        return {digest_id.decode(): _digest(written) for digest_id, written in saved.items()}

    async def save_digest(self, digest_id: str, digest: SavedDigest) -> None:
        """Save a digest under its id, in place of an earlier one, and renew the TTL of all digests."""
        refs = [[ref.stream, str(ref.id)] for ref in digest.refs]
        # `places` is the stored name of `refs`. Version 0.1 reads it and `confirmed` only.
        saved: dict[str, Any] = {"confirmed": digest.confirmation is not None, "places": refs}
        if digest.confirmation is not None:
            answer, attempts, at = digest.confirmation
            saved |= {"answer": answer, "attempts": attempts, "at": at.isoformat()}
        written = json.dumps(saved)
        with unavailable_if_away():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hset(self._keys.digests, digest_id, written)
            pipeline.expire(self._keys.digests, DIGESTS_TTL)
            await pipeline.execute()

    async def delete_digest(self, digest_id: str) -> None:
        """Delete a saved digest, if it exists."""
        with unavailable_if_away(self._keys.digests):
            await self._client.hdel(self._keys.digests, digest_id)

    async def disabled_answer(self) -> str | None:
        """Return the answer with which the destination disabled itself; None if it is enabled.

        If the stored answer cannot be read, return a text that says so.
        """
        with unavailable_if_away(self._keys.disabled):
            noted = await self._client.hget(self._keys.disabled, self._destination)
        if noted is None:
            return None
        try:
            return str(json.loads(noted)["answer"])
        except (ValueError, RecursionError, LookupError, TypeError):
            return "unknown: another program wrote it"

    async def disable(self, answer: str, at: datetime) -> None:
        """Mark the destination as disabled by its answer, until an operator enables it."""
        noted = json.dumps({"answer": answer, "at": at.isoformat(timespec="milliseconds")})
        with unavailable_if_away():
            await self._client.hset(self._keys.disabled, self._destination, noted)

    async def enable(self) -> bool:
        """Enable the destination; return whether it was disabled."""
        with unavailable_if_away():
            return bool(await self._client.hdel(self._keys.disabled, self._destination))


class RedisLease(KeyLease):
    """The lease to send to one destination.

    Args:
        client: client of the server.
        partitions: partitions with the alerts.
        destination: name of the destination.
        owner: unique name of this process.
    """

    def __init__(self, client: Redis, partitions: Partitions, destination: str, owner: str) -> None:
        super().__init__(client, RelayKeys(partitions.all[0], destination).lease, owner)


async def backlogs(client: Redis, streams: Sequence[str]) -> dict[str, BacklogFigures]:
    """Return the backlog of each destination with a group on at least one of these streams of alerts.

    The keys are the names of the destinations, sorted. A backlog is the sum over all these streams.
    """
    found: dict[str, None] = {}
    for stream in streams:
        with unavailable_if_away(stream):
            for info in await groups_of(client, stream):
                name = info["name"].decode(errors="replace")  # another program's group may have any name
                if name.startswith(RELAY_PREFIX):
                    found[name] = None
    return {
        name.removeprefix(RELAY_PREFIX): await backlog_of(client, streams, name) for name in sorted(found)
    }


async def backlog_of(client: Redis, streams: Iterable[str], group: str) -> BacklogFigures:
    """Return how many entries of these streams are unread or pending in a group, and the time of the oldest.

    `group` is the whole name of the group. Streams without it count nothing. If the server does not know the
    group's lag on a stream, at most `COUNTED` unread entries of that stream are counted.
    """
    alerts, oldest = 0, []
    for stream in streams:
        with unavailable_if_away(stream):
            infos = await groups_of(client, stream)
            for info in infos:
                if info["name"] == group.encode():
                    first = await _first_open(client, stream, info)
                    alerts += info["pending"] + await _unread(client, stream, info)
                    oldest += first
    return BacklogFigures(alerts, min(oldest, default=None))


async def _unread(client: Redis, stream: str, info: dict[str, Any]) -> int:
    """Return the number of entries that a group has not read; at most `COUNTED` if its lag is not known.

    `info` is the group as XINFO GROUPS describes it. After XDEL, for example, the server does not know the
    lag.
    """
    if info["lag"] is not None:
        return int(info["lag"])
    unread, after = 0, info["last-delivered-id"].decode()
    while unread < COUNTED:
        page: Any = await client.xrange(stream, f"({after}", "+", count=PAGE)
        unread += len(page)
        if len(page) < PAGE:
            break
        after = page[-1][0].decode()
    return unread


async def _first_open(client: Redis, stream: str, info: dict[str, Any]) -> list[int]:
    """Return the times of a group's oldest pending and oldest unread entry, in ms since the epoch.

    `info` is the group as XINFO GROUPS describes it. The list has at most two times; it is empty if no entry
    is pending or unread.
    """
    found = []
    if info["pending"]:
        pending: Any = await client.xpending(stream, info["name"])
        found += [pending["min"]] if pending["min"] else []
    if info["lag"] != 0:
        after = info["last-delivered-id"].decode()
        unread: Any = await client.xrange(stream, f"({after}", "+", count=1)
        found += [entry_id for entry_id, _ in unread]
    return [EntryId.parse(each.decode()).ms for each in found]


def _by_stream(refs: Iterable[EntryRef]) -> Iterable[tuple[str, Iterable[EntryRef]]]:
    return groupby(sorted(refs), key=lambda ref: ref.stream)


def _is_missing_group(error: Exception) -> bool:
    return str(error).startswith("NOGROUP")


def _digest(written: bytes) -> SavedDigest:
    saved: dict[str, Any] = json.loads(written)
    refs = tuple(EntryRef(stream, EntryId.parse(entry_id)) for stream, entry_id in saved["places"])
    if not saved["confirmed"]:
        return SavedDigest(refs)
    at = datetime.fromisoformat(saved["at"]) if "at" in saved else datetime.now(UTC)
    return SavedDigest(refs, Confirmation(saved.get("answer", ""), saved.get("attempts", 1), at))
