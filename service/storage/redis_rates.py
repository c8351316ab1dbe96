"""Counts of refused responses in Redis, kept by partition; the first partition also stores the spikes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, cast

import msgspec

from service.alert_parsing import parse_alert
from service.keys import Keys
from service.rates.proportions import Count
from service.rates.spikes import LeaderLock, Rates, Subject
from service.storage import replies, scripts
from service.storage.buckets import baseline_of, window_of
from service.storage.client.availability import unavailable_if_away
from service.storage.records import entry_of, pairs, stamped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from deltaloom.messages import ModerationAlert
    from deltaloom.streams import StreamNames
    from service.rates.spikes import Change
    from service.settings import Settings

GOOD_FOR_MS = 10_000
"""Maximum milliseconds from the acquisition of a leader lock to `write`.

A paused worker may resume much later, with old counts.
"""

_BUCKETS_AT_ONCE = 3
"""Maximum buckets that one call sums; a full one takes the server about 3 ms."""

_VERSION = b"version"
_SPIKES, _PROVIDER_SPIKES = 1, 3
"""Indexes, from 1, of the keys in which `spikes.lua` stores spikes."""

_COUNT_INDEXES = {what: place for place, what in enumerate(Count._fields)}

_encode = msgspec.msgpack.Encoder().encode


class RedisRates:
    """Implementation of `service.rates.spikes.RateStorage` in Redis."""

    def __init__(
        self,
        client: Redis,
        settings: Settings,
        partitions: Sequence[StreamNames] | None = None,
        *,
        looks_first: bool = True,
    ) -> None:
        """Serve these partitions, or all if None; the first one stores the spikes.

        With `looks_first`, EXISTS first finds the buckets that are worth reading; without it, all are read.
        Operators have no right to EXISTS, so they pass False.
        """
        self._partitions = [Keys(names) for names in partitions or settings.names.all]
        self._home = self._partitions[0]
        self._consumer = settings.consumer
        self._window = window_of(settings)
        self._baseline = baseline_of(settings)
        self._kept_ms = round(max(settings.retention, 2 * settings.spike_baseline) * 1000)
        self._lock = scripts.Script(client, "leader_lock")
        self._counted = scripts.Script(client, "rates")
        self._write = scripts.Script(client, "spikes")
        self._client = client
        self._looks_first = looks_first

    async def acquire_leader_lock(self, lasts_ms: int) -> LeaderLock | None:
        """Acquire the right to look for spikes, and read the current spikes and the server's time.

        Return None if a worker, this one included, already has the right. It expires after `lasts_ms`
        milliseconds.
        """
        home = self._home
        with unavailable_if_away():
            reply = await self._lock(
                keys=[home.spike_turn, home.spikes, home.provider_spikes],
                args=[self._consumer, max(1, lasts_ms)],
            )
        if reply is None:
            return None
        now_ms, flat = reply
        fields = dict(pairs(flat))
        return LeaderLock(int(now_ms), int(fields.get(_VERSION, 0)), _spikes(fields))

    async def spikes(self) -> Mapping[Subject, ModerationAlert]:
        """Return the current spikes, with the alerts that began them."""
        fields: dict[bytes, bytes] = {}
        for key in (self._home.spikes, self._home.provider_spikes):
            with unavailable_if_away(key):
                fields |= cast("dict[bytes, bytes]", await self._client.hgetall(key))
        return _spikes(fields)

    async def now_ms(self) -> int:
        """Return the server's time in milliseconds since the epoch."""
        with unavailable_if_away():
            seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def counted(self, now_ms: int) -> Rates:
        """Return the counts up to the server time `now_ms`, each the sum over the partitions served.

        Several scripts read the buckets, a few each, so that none blocks the server for long. Responses that
        are counted between two scripts may be missing from the window.
        """
        window: Counter[str] = Counter()
        both: Counter[str] = Counter()
        for series, sums in ((self._window, window), (self._baseline, both)):
            buckets = [series.keys(keys, now_ms) for keys in self._partitions]
            for some in await self._existing(buckets):
                await self._add_up(some, sums)
        # With tens of thousands of names this would block the event loop.
        return await asyncio.to_thread(self._rates, now_ms, window, both)

    def _rates(self, now_ms: int, window: Mapping[str, int], both: Mapping[str, int]) -> Rates:
        in_window, in_both = _counts(window), _counts(both)
        for subject, count in in_window.items():
            if subject in in_both:
                in_both[subject] = in_both[subject].without(count)
        return Rates(now_ms, self._window.since(now_ms), self._baseline.since(now_ms), in_window, in_both)

    async def _add_up(self, buckets: Sequence[str], sums: Counter[str]) -> None:
        """Add the counts in the buckets with these keys to `sums`, by the names of the buckets' fields.

        All keys must be in one partition.
        """
        calls = [buckets[n : n + _BUCKETS_AT_ONCE] for n in range(0, len(buckets), _BUCKETS_AT_ONCE)]
        for keys in await self._existing(calls):
            with unavailable_if_away():
                reply = await self._counted(keys=keys, args=[])
            counted = replies.decode_rates(reply)
            sums.update(dict(zip(counted.fields, counted.sums, strict=True)))

    async def _existing(self, lists: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
        """Return the lists in which a key exists, in the same order; without `looks_first`, return all lists.

        The keys of each list must be in one partition.
        """
        if not self._looks_first:
            return lists
        pipeline = self._client.pipeline(transaction=False)
        for keys in lists:
            pipeline.exists(*keys)
        with unavailable_if_away():
            counts = await pipeline.execute()
        return [keys for keys, count in zip(lists, counts, strict=True) if count]

    async def write(self, lock: LeaderLock, changes: Sequence[Change]) -> bool:
        """Raise the alert of each change; store a spike that begins, and remove one that ends.

        Return True if that is done. Return False, and write nothing, if the spikes have changed since `lock`
        was acquired, or if it was acquired more than `GOOD_FOR_MS` ago. The lock may have expired.
        """
        plan = []
        for change in changes:
            json = stamped(change.alert, self._home.names.prefix).model_dump_json()
            key = _PROVIDER_SPIKES if change.subject.scope == "provider" else _SPIKES
            kept = json if change.begins else ""
            plan.append((key, str(change.subject), kept, entry_of(change.alert, json)))
        with unavailable_if_away():
            written: int = await self._write(
                keys=[self._home.spikes, self._home.names.alerts, self._home.provider_spikes],
                args=[lock.version, lock.now_ms, GOOD_FOR_MS, self._kept_ms, _encode(plan)],
            )
        return bool(written)


def _spikes(fields: Mapping[bytes, bytes]) -> dict[Subject, ModerationAlert]:
    return {
        Subject.parse(field.decode()): parse_alert(json).alert
        for field, json in fields.items()
        if field != _VERSION
    }


def _counts(sums: Mapping[str, int]) -> dict[Subject, Count]:
    """Return the counts by subject from the fields of buckets; ignore fields that a later version added.

    A field is `<count>:<scope>:<name>`, or `<count>.<scope>:<name>` if workers of v0.1.0 must not read it:
    they read every scope except `model` as a tenant.
    """
    counts: dict[str, list[int]] = {}
    for field, number in sums.items():
        head, _, rest = field.partition(":")
        what, _, scope = head.partition(".")
        place = _COUNT_INDEXES.get(what)
        if place is not None:
            subject = f"{scope}:{rest}" if scope else rest
            counts.setdefault(subject, [0, 0, 0])[place] += number
    return {Subject.parse(subject): Count(*numbers) for subject, numbers in counts.items()}
