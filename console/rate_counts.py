"""Read the workers' counts of ended, refused and blocked responses, bucket by bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.keys import Keys
from service.rates.proportions import Count
from service.rates.spikes import Subject
from service.storage.buckets import baseline_of, window_of
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames
    from service.settings import Settings
    from service.storage.buckets import Series

Buckets = dict[int, dict[Subject, Count]]
"""Counts by subject, by the beginning of their bucket in ms since the epoch."""

_DIGITS: Final = 15
"""Maximum digits of a count; more are not a worker's."""
_AT_ONCE: Final = 50
"""Buckets that are read in one pipeline; a full one has some 100 kB."""


class RateCounts:
    """The buckets of all partitions.

    Args:
        client: client of the server.
        settings: widths of the buckets; they must be those of the workers.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._client = client
        self._partitions: Sequence[StreamNames] = settings.names.all
        self._narrow, self._wide = window_of(settings), baseline_of(settings)

    @property
    def step_ms(self) -> int:
        """Width of a narrow bucket in milliseconds."""
        return self._narrow.width_ms

    @property
    def wide_ms(self) -> int:
        """Width of a wide bucket in milliseconds."""
        return self._wide.width_ms

    async def now_ms(self) -> int:
        """Return the server's time in milliseconds since the epoch."""
        with unavailable_if_away():
            seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def narrow(self) -> tuple[int, Buckets]:
        """Return the server's time and the narrow buckets."""
        return await self._read(self._narrow)

    async def wide(self) -> tuple[int, Buckets]:
        """Return the server's time and the wide buckets."""
        return await self._read(self._wide)

    async def _read(self, series: Series) -> tuple[int, Buckets]:
        now = await self.now_ms()
        starts = range(series.since(now), now + 1, series.width_ms)
        wanted = [
            (start, Keys(names).rates(series.width_ms, start))
            for start in starts
            for names in self._partitions
        ]
        buckets: Buckets = {start: {} for start in starts}
        for first in range(0, len(wanted), _AT_ONCE):
            some = wanted[first : first + _AT_ONCE]
            pipeline = self._client.pipeline(transaction=False)
            for _, key in some:
                pipeline.hgetall(key)
            with unavailable_if_away():
                replies = await pipeline.execute()
            for (start, _), fields in zip(some, replies, strict=True):
                add_counts(buckets[start], fields)
        return now, buckets


def add_counts(counts: dict[Subject, Count], fields: Mapping[bytes, bytes]) -> None:
    """Add the fields of a bucket to the counts by subject; fields of a later version are ignored.

    A field is `<count>:<scope>:<name>`, or `<count>.<scope>:<name>`; see `service.storage.redis_rates`.
    """
    for field, number in fields.items():
        head, _, rest = field.decode("utf-8", "replace").partition(":")
        what, _, scope = head.partition(".")
        if what in Count._fields and number.isdigit() and len(number) <= _DIGITS:
            subject = Subject.parse(f"{scope}:{rest}" if scope else rest)
            counts[subject] = counts.get(subject, Count()).plus(Count(**{what: int(number)}))


def totals(counts: Mapping[Subject, Count]) -> Count:
    """Return the count of all responses: that of the property that most of them have.

    A response counts once for its model, once for its provider and once for its tenant, if they are known.
    """
    scopes = {subject.scope for subject in counts}
    sums = [sum_of(count for subject, count in counts.items() if subject.scope == scope) for scope in scopes]
    return max(sums, default=Count())


def sum_of(counts: Iterable[Count]) -> Count:
    """Return the sum of counts."""
    total = Count()
    for count in counts:
        total = total.plus(count)
    return total
