"""Tests of the outbox and lease of a destination on a real server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from deltaloom import Partitions, StreamNames
from deltaloom.messages import SCHEMA
from handlers.core.identity import EntryId
from service.keys import Keys
from service.ports.outbox import BEGINNING, CONSUMER, EntryRef, Failure, SavedDigest
from service.storage.group import ConsumerGroup
from service.storage.redis_outbox import PAGE, DestinationGroup, RedisLease, RedisOutbox
from tests.relays import raise_alert, undelivered
from tests.streams import add, read_as

if TYPE_CHECKING:
    from redis.asyncio import Redis

GROUP = "relay:here"
FAILURE = Failure("refused", "400 no", 3, datetime(2026, 5, 4, 12, tzinfo=UTC))


class Stage:
    """The outbox of a destination, with its stream of alerts."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix
        self.names = StreamNames(prefix)
        self.outbox = RedisOutbox(redis, Partitions(prefix=prefix), "here")

    async def raised(self, *responses: str) -> None:
        """Raise an alert for each of these responses."""
        for response in responses:
            await raise_alert(self.redis, self.prefix, "opened", response)

    async def read(self, count: int = 1000) -> list[EntryRef]:
        """Read new entries as the relay's subscriber does, and return their references."""
        entries = await read_as(self.redis, self.names.alerts, GROUP, CONSUMER, count)
        return [EntryRef(self.names.alerts, EntryId.parse(entry_id.decode())) for entry_id, _ in entries]

    async def pending(
        self, after: EntryId = BEGINNING, before: EntryId | None = None, idle_ms: int = 0
    ) -> list[EntryRef]:
        """Return the references of pending entries between two ids, idle for at least `idle_ms`."""
        page = await self.outbox.pending_page(self.names.alerts, after, before, idle_ms)
        return [entry.ref for entry in page.entries]


@pytest.fixture
async def stage(redis: Redis, prefix: str) -> Stage:
    """Create an outbox with its consumer group."""
    await DestinationGroup(redis, StreamNames(prefix).alerts, "here").ensure()
    return Stage(redis, prefix)


async def test_pending_is_what_was_read_and_not_settled(stage: Stage) -> None:
    """A starting relay takes over exactly the entries that its predecessor read and did not settle."""
    await stage.raised("1", "2", "3", "4")
    first, second, third, fourth = await stage.read()
    assert await stage.pending() == [first, second, third, fourth]
    assert await stage.pending(first.id, fourth.id) == [second, third]
    assert await stage.pending(idle_ms=60_000) == []
    await stage.outbox.acknowledge([first, third])
    assert await stage.pending() == [second, fourth]
    assert [entry.ref for entry in await stage.outbox.still_pending([first, second])] == [second]


async def test_pending_in_pages(stage: Stage) -> None:
    """A large backlog is returned in pages instead of one reply."""
    await stage.raised(*map(str, range(PAGE + 5)))
    refs = await stage.read()
    page = await stage.outbox.pending_page(stage.names.alerts, BEGINNING, None)
    assert (len(page.entries), page.more, page.upto) == (PAGE, True, refs[PAGE - 1].id)
    rest = await stage.outbox.pending_page(stage.names.alerts, page.upto, None)
    assert (len(rest.entries), rest.more) == (5, False)


async def test_trimmed_is_reported_and_no_longer_pending(stage: Stage) -> None:
    """A pending entry that was deleted from the stream is reported as lost once, and then acknowledged."""
    await stage.raised("1", "2")
    disabled_answer, there = await stage.read()
    await stage.redis.xdel(stage.names.alerts, str(disabled_answer.id))
    page = await stage.outbox.pending_page(stage.names.alerts, BEGINNING, None)
    assert ([entry.ref for entry in page.entries], page.lost) == ([there], 1)
    assert (await stage.outbox.pending_page(stage.names.alerts, BEGINNING, None)).lost == 0


async def test_given_up_once(stage: Stage) -> None:
    """A script that runs twice, because its reply was lost, stores one undelivered alert."""
    await stage.raised("1")
    (ref,) = await stage.read()
    for _ in range(2):
        await stage.outbox.give_up(ref, FAILURE)
    (given_up,) = await undelivered(stage.redis, stage.prefix)
    assert (given_up.destination, given_up.reason, given_up.answer) == ("here", "refused", "400 no")
    assert (given_up.attempts, given_up.entry_id) == (3, str(ref.id))
    assert (given_up.schema_version, given_up.source) == (SCHEMA, "deltaloom")
    assert "opened_1" in str(given_up.alert)
    assert await stage.pending() == []


async def test_group_begins_now_or_with_all(stage: Stage) -> None:
    """The group of a new destination begins at the stream's end or its start, as configured."""
    await stage.raised("1")
    for name, begin, unread in (("now", "now", 0), ("all", "all", 1)):
        group = DestinationGroup(stage.redis, stage.names.alerts, name)
        await group.ensure(begin)  # type: ignore[arg-type]  # the literal "now" or "all"
        await group.ensure("now")
        read = await read_as(stage.redis, stage.names.alerts, f"relay:{name}", CONSUMER, 10)
        assert len(read) == unread


async def test_digests_are_kept(stage: Stage) -> None:
    """The next lease holder needs to know which alerts are already part of a digest message."""
    await stage.raised("1", "2")
    refs = tuple(await stage.read())
    for digest in (SavedDigest(refs, confirmed=False), SavedDigest(refs, confirmed=True)):
        await stage.outbox.save_digest("digest_1", digest)
        assert await stage.outbox.digests() == {"digest_1": digest}
    await stage.outbox.delete_digest("digest_1")
    assert await stage.outbox.digests() == {}


async def test_disabled_until_enabled(stage: Stage) -> None:
    """A disabled destination stays disabled, with its reason, until it is enabled."""
    assert await stage.outbox.disabled_answer() is None
    await stage.outbox.disable("410", FAILURE.failed_at)
    assert await stage.outbox.disabled_answer() == "410"
    assert await stage.outbox.enable()
    assert not await stage.outbox.enable()
    assert await stage.outbox.disabled_answer() is None


async def test_lease_is_held_by_one(redis: Redis, prefix: str) -> None:
    """Otherwise two relays would hold the lease, and both would send."""
    first, second = (RedisLease(redis, Partitions(prefix=prefix), "here", owner) for owner in ("a", "b"))
    other = RedisLease(redis, Partitions(prefix=prefix), "there", "b")
    assert await first.acquire(60_000)
    assert await first.acquire(60_000)
    assert not await second.acquire(60_000)
    assert await other.acquire(60_000)
    await second.release()
    assert not await second.acquire(60_000)
    await first.release()
    assert await second.acquire(60_000)
    assert 0 < await redis.pttl(f"{prefix}:relay:here:lease") <= 60_000


HOUR_MS = 3600 * 1000


@pytest.mark.parametrize(
    ("hours", "reads", "stays"), [(2, False, True), (2, True, False), (30, False, False)]
)
async def test_what_is_pending_is_trimmed_last(stage: Stage, *, hours: int, reads: bool, stays: bool) -> None:
    """Alerts that a destination has not taken are kept longer than the retention, for at most a day."""
    redis, names = stage.redis, stage.names
    now_ms = (await redis.time())[0] * 1000
    for number in range(300):  # servers trim whole nodes of 100 entries
        entry = f"{now_ms - hours * HOUR_MS}-{number + 1}"
        await redis.xadd(names.alerts, {"__data__": "{}"}, id=entry)
    await add(redis, names.deltas, {"event": "{}"})
    group = ConsumerGroup(redis, Keys(names), "worker")
    await group.ensure()
    if reads:
        await stage.outbox.acknowledge(await stage.read())
    await group.trim(HOUR_MS)
    assert (await redis.xlen(names.alerts) == 300) is stays
