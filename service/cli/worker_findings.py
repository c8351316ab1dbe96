"""The findings of `deltaloom check` about the progress of the workers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from redis.exceptions import ResponseError

from deltaloom.streams import GROUP
from service.cli.output import plural
from service.ports.storage import SetupError, StorageUnavailableError
from service.storage.client.availability import unavailable_if_away
from service.storage.client.server import ServerFinding, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions, StreamNames

_SILENT_SECONDS = 30
"""Seconds without a read or a claim after which a consumer with work to do is silent."""

_OLD_SECONDS = 60
"""Age in seconds from which the oldest pending entry is named."""

_NAMED = 3
"""Maximum number of silent consumers that are named."""

_EXAMINED = 20
"""Maximum number of silent consumers of a partition whose entries are looked at."""

_RELEASED_SECONDS = 86_400
"""Idle seconds that a stopping worker gives its entries, so that others claim them at once (`leave.lua`)."""


class ConsumerSeen(NamedTuple):
    """A consumer, which is a worker in one partition."""

    name: str
    pending: int
    idle_seconds: float
    stopped: bool = False
    """True if it has released its entries, as a worker does when it stops."""


class OldestPending(NamedTuple):
    """The oldest pending entry of a partition."""

    stream: str
    id: str
    consumer: str
    deliveries: int
    age_seconds: float


class PartitionProgress(NamedTuple):
    """The progress of the workers in one partition."""

    consumers: Sequence[ConsumerSeen]
    pending: int
    lag: int | None
    letters: int
    oldest: OldestPending | None

    @property
    def silent(self) -> list[ConsumerSeen]:
        """The consumers that have not read or claimed for long while there is work.

        One without pending entries is often that of a worker that has ended; it counts if no other reads.
        """
        running = [each for each in self.consumers if not each.stopped]
        quiet = [each for each in running if each.idle_seconds > _SILENT_SECONDS]
        nobody_reads = len(quiet) == len(running) and self.lag != 0
        return [each for each in quiet if each.pending or nobody_reads]

    @property
    def deserted(self) -> bool:
        """True if no consumer is left but those that have stopped."""
        return all(each.stopped for each in self.consumers)


class Unread(NamedTuple):
    """A partition without the workers' group, and the number of its entries."""

    stream: str
    entries: int


async def workers(client: Redis, partitions: Partitions) -> list[ServerFinding]:
    """Check the progress of the workers in all partitions together, and the oldest pending entry."""
    # Query concurrently: if a master is unavailable, each of its partitions takes some time to fail.
    found = await asyncio.gather(*(_progress(client, names) for names in partitions.all))
    for each in found:
        if isinstance(each, ServerFinding):
            return [each]
    away = found.count("away")
    if away == len(found):
        return [ServerFinding("workers", "fail", "no partition can be served: their servers do not answer")]
    unread = [each for each in found if isinstance(each, Unread)]
    if unread:
        more = f" (nor {plural(len(unread) - 1, 'other partition')})" if unread[1:] else ""
        says = f"no worker has read {unread[0].stream}{more} yet; the first one makes the group"
        if entries := sum(each.entries for each in unread):
            says += f"; {plural(entries, 'entry', 'entries')} waiting"
        return [ServerFinding("workers", "warn", says)]
    progress = [each for each in found if isinstance(each, PartitionProgress)]
    return [workers_finding(progress, away), *_oldest_finding(progress)]


async def _progress(
    client: Redis, names: StreamNames
) -> PartitionProgress | ServerFinding | Unread | Literal["away"]:
    """Return the progress in a partition; `away` if it is unavailable."""
    try:
        with unavailable_if_away():
            groups = await client.xinfo_groups(names.deltas)
            letters = int(await client.xlen(names.dead_letters))
            mine = next((group for group in groups if group["name"] == GROUP.encode()), None)
            if mine is None:
                return Unread(names.deltas, int(await client.xlen(names.deltas)))
            consumers = await client.xinfo_consumers(names.deltas, GROUP)
            stopped = await _stopped(client, names.deltas, consumers)
            oldest = await _oldest(client, names.deltas) if mine["pending"] else None
    except SetupError as error:
        state: State = "fail" if error.state == "WRONGTYPE" else "warn"
        return ServerFinding("workers", state, f"{names.deltas}: {error}")
    except StorageUnavailableError:
        return "away"
    except ResponseError as error:
        if "no such key" in str(error):
            return Unread(names.deltas, 0)
        return ServerFinding("workers", "warn", f"{names.deltas}: {error}")
    there = [
        ConsumerSeen(
            each["name"].decode(errors="replace"),
            each["pending"],
            each["idle"] / 1000,
            each["name"] in stopped,
        )
        for each in consumers
    ]
    return PartitionProgress(there, mine["pending"], mine["lag"], letters, oldest)


async def _stopped(client: Redis, stream: str, consumers: list[dict[str, Any]]) -> set[bytes]:
    """Return the consumers whose oldest pending entry was released."""
    quiet = [each for each in consumers if each["pending"] and each["idle"] > 1000 * _SILENT_SECONDS]
    found = set()
    for each in quiet[:_EXAMINED]:
        oldest: Any = await client.xpending_range(
            stream, GROUP, min="-", max="+", count=1, consumername=each["name"]
        )
        if oldest and oldest[0]["time_since_delivered"] >= 1000 * _RELEASED_SECONDS:
            found.add(each["name"])
    return found


async def _oldest(client: Redis, stream: str) -> OldestPending | None:
    pending: Any = await client.xpending_range(stream, GROUP, min="-", max="+", count=1)
    if not pending:
        return None
    (first,) = pending
    entry_id = first["message_id"].decode()
    age = time.time() - int(entry_id.partition("-")[0]) / 1000
    consumer = first["consumer"].decode(errors="replace")
    return OldestPending(stream, entry_id, consumer, first["times_delivered"], max(0.0, age))


def workers_finding(progress: list[PartitionProgress], away: int) -> ServerFinding:
    """Return the finding about the progress in these partitions; `away` others are not available."""
    letters = sum(each.letters for each in progress)
    lags = [each.lag for each in progress]
    lag = "unknown" if None in lags else f"{sum(filter(None, lags)):,}"
    # A worker is one consumer in each partition that it serves.
    consumers = plural(sum(len(each.consumers) for each in progress), "consumer")
    where = f" in {len(progress)} partitions" if progress[1:] else ""
    stopped = sum(each.stopped for one in progress for each in one.consumers)
    consumers += f" ({stopped} stopped)" if stopped else ""
    says = f"{consumers}{where}, {sum(each.pending for each in progress):,} pending, lag {lag}"
    if away:
        waiting = f"{plural(away, 'partition')} whose server does not answer"
        return ServerFinding("workers", "warn", f"{says}, {waiting}")
    deserted = [each for each in progress if each.deserted]
    if deserted and progress[1:]:
        says = f"{says}, {plural(len(deserted), 'partition')} without a consumer"
        return ServerFinding("workers", "warn", says)
    if any(each.lag != 0 or each.pending for each in deserted):
        return ServerFinding("workers", "warn", f"{says}: no worker reads the input; {_READ_LOG}")
    # Those that hold entries first, then the latest reader: the others may have stopped long ago.
    silent = sorted(
        (each for one in progress for each in one.silent),
        key=lambda each: (not each.pending, -each.idle_seconds if each.pending else each.idle_seconds),
    )
    if silent:
        return ServerFinding("workers", "warn", f"{says}, {_silence_of(silent)}")
    if letters:
        return ServerFinding(
            "workers", "warn", f"{says}, {plural(letters, 'dead letter')} (deltaloom dead-letters list)"
        )
    return ServerFinding("workers", "ok", says)


_READ_LOG = "if one runs, its log and /readyz say why (deltaloom check as its user tries its rights)"


def _silence_of(silent: Sequence[ConsumerSeen]) -> str:
    named = ", ".join(f"{each.name} has not read for {each.idle_seconds:,.0f} s" for each in silent[:_NAMED])
    more = f" (nor {plural(len(silent) - _NAMED, 'other')})" if silent[_NAMED:] else ""
    why = "frozen, dead, stopped, or waiting for Redis?"
    return f"{named}{more}: {why} {_READ_LOG}; deltaloom health says more"


def _oldest_finding(progress: Sequence[PartitionProgress]) -> list[ServerFinding]:
    """Return a finding about the oldest pending entry, unless it is young and was delivered only once."""
    worst = max(
        (each.oldest for each in progress if each.oldest is not None),
        key=lambda oldest: (oldest.deliveries > 1, oldest.age_seconds),
        default=None,
    )
    if worst is None or (worst.age_seconds < _OLD_SECONDS and worst.deliveries == 1):
        return []
    says = (
        f"{worst.id} of {worst.stream} is {worst.age_seconds:,.0f} s old and was delivered "
        f"{plural(worst.deliveries, 'time')}, last to {worst.consumer}"
    )
    if worst.deliveries > 1:
        says += ": does it crash workers? See docs/runbooks.md, DeltaloomLowWaterStuck"
    return [ServerFinding("oldest entry", "warn", says)]
