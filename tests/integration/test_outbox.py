"""What is owed, in a real server: read, looked for, settled and given up; and whose turn it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from deltaloom import Partitions, StreamNames
from deltaloom.messages import SCHEMA
from handlers.core.identity import EntryId
from service.keys import Keys
from service.ports.outbox import BEGINNING, CONSUMER, Failure, KeptDigest, Place
from service.storage.group import ConsumerGroup
from service.storage.outbox import PAGE, DestinationGroup, RedisLease, RedisOutbox
from tests.relays import raise_alert, undelivered
from tests.streams import add, read_as

if TYPE_CHECKING:
    from redis.asyncio import Redis

GROUP = "relay:here"
FAILURE = Failure("refused", "400 no", 3, datetime(2026, 5, 4, 12, tzinfo=UTC))


class Stage:
    """One destination's outbox, and its stream."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix
        self.names = StreamNames(prefix)
        self.outbox = RedisOutbox(redis, Partitions(prefix=prefix), "here")

    async def raised(self, *responses: str) -> None:
        """Alerts are raised."""
        for response in responses:
            await raise_alert(self.redis, self.prefix, "opened", response)

    async def read(self, count: int = 1000) -> list[Place]:
        """What is new is read, as the relay's subscriber does."""
        entries = await read_as(self.redis, self.names.alerts, GROUP, CONSUMER, count)
        return [Place(self.names.alerts, EntryId.parse(entry_id.decode())) for entry_id, _ in entries]

    async def owed(
        self, after: EntryId = BEGINNING, before: EntryId | None = None, idle_ms: int = 0
    ) -> list[Place]:
        """What is owed."""
        page = await self.outbox.owed(self.names.alerts, after, before, idle_ms)
        return [entry.place for entry in page.entries]


@pytest.fixture
async def stage(redis: Redis, prefix: str) -> Stage:
    """An outbox with a group."""
    await DestinationGroup(redis, StreamNames(prefix).alerts, "here").ensure()
    return Stage(redis, prefix)


async def test_owed_is_what_was_read_and_not_settled(stage: Stage) -> None:
    """A relay that starts takes up exactly what the one before it had not done."""
    await stage.raised("1", "2", "3", "4")
    first, second, third, fourth = await stage.read()
    assert await stage.owed() == [first, second, third, fourth]
    assert await stage.owed(first.id, fourth.id) == [second, third]
    assert await stage.owed(idle_ms=60_000) == []
    await stage.outbox.settle([first, third])
    assert await stage.owed() == [second, fourth]
    assert [entry.place for entry in await stage.outbox.still_owed([first, second])] == [second]


async def test_owed_in_pages(stage: Stage) -> None:
    """A backlog of a day must not be one reply."""
    await stage.raised(*map(str, range(PAGE + 5)))
    places = await stage.read()
    page = await stage.outbox.owed(stage.names.alerts, BEGINNING, None)
    assert (len(page.entries), page.more, page.upto) == (PAGE, True, places[PAGE - 1].id)
    rest = await stage.outbox.owed(stage.names.alerts, page.upto, None)
    assert (len(rest.entries), rest.more) == (5, False)


async def test_trimmed_is_told_and_owed_no_more(stage: Stage) -> None:
    """What is gone cannot be delivered: saying so once is all that is left to do."""
    await stage.raised("1", "2")
    gone, there = await stage.read()
    await stage.redis.xdel(stage.names.alerts, str(gone.id))
    page = await stage.outbox.owed(stage.names.alerts, BEGINNING, None)
    assert ([entry.place for entry in page.entries], page.lost) == ([there], 1)
    assert (await stage.outbox.owed(stage.names.alerts, BEGINNING, None)).lost == 0


async def test_given_up_once(stage: Stage) -> None:
    """A script that is run again, since its reply was lost, must not make two of one."""
    await stage.raised("1")
    (place,) = await stage.read()
    for _ in range(2):
        await stage.outbox.give_up(place, FAILURE)
    (given_up,) = await undelivered(stage.redis, stage.prefix)
    assert (given_up.destination, given_up.reason, given_up.answer) == ("here", "refused", "400 no")
    assert (given_up.attempts, given_up.entry_id) == (3, str(place.id))
    assert (given_up.schema_version, given_up.source) == (SCHEMA, "deltaloom")
    assert "opened_1" in str(given_up.alert)
    assert await stage.owed() == []


async def test_group_begins_now_or_with_all(stage: Stage) -> None:
    """A destination that begins at the wrong end tells of a week, or misses what it was set up for."""
    await stage.raised("1")
    for name, begin, unread in (("now", "now", 0), ("all", "all", 1)):
        group = DestinationGroup(stage.redis, stage.names.alerts, name)
        await group.ensure(begin)  # type: ignore[arg-type]  # one of the two
        await group.ensure("now")
        read = await read_as(stage.redis, stage.names.alerts, f"relay:{name}", CONSUMER, 10)
        assert len(read) == unread


async def test_digests_are_kept(stage: Stage) -> None:
    """Whoever takes over has to know which alerts are already in one message."""
    await stage.raised("1", "2")
    places = tuple(await stage.read())
    for digest in (KeptDigest(places, confirmed=False), KeptDigest(places, confirmed=True)):
        await stage.outbox.keep_digest("digest_1", digest)
        assert await stage.outbox.digests() == {"digest_1": digest}
    await stage.outbox.drop_digest("digest_1")
    assert await stage.outbox.digests() == {}


async def test_gone_until_enabled(stage: Stage) -> None:
    """A destination that is disabled stays so through restarts, until somebody mends it."""
    assert await stage.outbox.gone() is None
    await stage.outbox.note_gone("410", FAILURE.failed_at)
    assert await stage.outbox.gone() == "410"
    assert await stage.outbox.enable()
    assert not await stage.outbox.enable()
    assert await stage.outbox.gone() is None


async def test_lease_is_held_by_one(redis: Redis, prefix: str) -> None:
    """Two that both hold it both send."""
    first, second = (RedisLease(redis, Partitions(prefix=prefix), "here", owner) for owner in ("a", "b"))
    other = RedisLease(redis, Partitions(prefix=prefix), "there", "b")
    assert await first.hold(60_000)
    assert await first.hold(60_000)
    assert not await second.hold(60_000)
    assert await other.hold(60_000)
    await second.release()
    assert not await second.hold(60_000)
    await first.release()
    assert await second.hold(60_000)
    assert 0 < await redis.pttl(f"{prefix}:relay:here:lease") <= 60_000


HOUR_MS = 3600 * 1000


@pytest.mark.parametrize(
    ("hours", "reads", "stays"), [(2, False, True), (2, True, False), (30, False, False)]
)
async def test_what_is_owed_is_trimmed_last(stage: Stage, *, hours: int, reads: bool, stays: bool) -> None:
    """With a short retention, an alert for a destination that is away would be gone before it is back."""
    redis, names = stage.redis, stage.names
    now_ms = (await redis.time())[0] * 1000
    for number in range(300):  # servers trim by whole nodes, of 100 entries
        entry = f"{now_ms - hours * HOUR_MS}-{number + 1}"
        await redis.xadd(names.alerts, {"__data__": "{}"}, id=entry)
    await add(redis, names.deltas, {"event": "{}"})
    group = ConsumerGroup(redis, Keys(names), "worker")
    await group.ensure()
    if reads:
        await stage.outbox.settle(await stage.read())
    await group.trim(HOUR_MS)
    assert (await redis.xlen(names.alerts) == 300) is stays
