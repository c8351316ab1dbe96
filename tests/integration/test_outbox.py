"""Tests of the outbox and lease of a destination on a real server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from deltaloom import Partitions, StreamNames
from deltaloom.messages import SCHEMA
from handlers.core.identity import EntryId
from service.keys import Keys
from service.ports.outbox import BEGINNING, CONSUMER, Confirmation, EntryRef, Failure, SavedDigest
from service.ports.storage import StorageUnavailableError
from service.storage.group import ConsumerGroup
from service.storage.redis_outbox import PAGE, RECORDED_AT_ONCE, DestinationGroup, RedisLease, RedisOutbox
from tests.relays import deliveries, ended, raise_alert, undelivered
from tests.streams import add, entries, read_as

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


@pytest.mark.parametrize("failing", [0, 2])
async def test_acknowledgements_share_calls(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Entries that are acknowledged during a call share the next one; those of a failed call, too.

    Otherwise each would cost a call, or a caller would take an entry for acknowledged that is still pending.
    """
    await stage.raised(*map(str, range(10)))
    refs = await stage.read()
    acknowledge, calls = stage.redis.xack, []

    async def counted(stream: str, group: str, *ids: str) -> int:
        calls.append(len(ids))
        if len(calls) <= failing:
            raise RedisConnectionError
        return await acknowledge(stream, group, *ids)

    monkeypatch.setattr(stage.redis, "xack", counted)
    results = await asyncio.gather(*(stage.outbox.acknowledge([ref]) for ref in refs), return_exceptions=True)
    failures = [StorageUnavailableError] * failing
    assert [type(result) for result in results] == [*failures, *[type(None)] * (10 - failing)]
    assert len(calls) == 2 + failing
    assert await stage.pending() == []


async def test_deliveries_share_calls(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliveries that end during a call are recorded by the next one, each once.

    Otherwise each would cost a call of the script, which is a tenth of the relay's time in a flood.
    """
    await stage.raised(*map(str, range(10)))
    refs = await stage.read()
    record, calls = stage.outbox._delivered, []  # noqa: SLF001 - the calls are what this test is about

    async def counted(keys: list[str], args: list[str]) -> object:
        calls.append(len(args) // 2)
        return await record(keys=keys, args=args)

    monkeypatch.setattr(stage.outbox, "_delivered", counted)
    await asyncio.gather(*(stage.outbox.record_delivered([ended(ref)]) for ref in refs))
    assert calls == [1, 9]
    assert await stage.pending() == []
    assert await stage.redis.xlen(stage.names.deliveries) == 10


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
        await stage.outbox.give_up(ended(ref, "refused"), FAILURE)
    (given_up,) = await undelivered(stage.redis, stage.prefix)
    assert (given_up.destination, given_up.reason, given_up.answer) == ("here", "refused", "400 no")
    assert (given_up.attempts, given_up.entry_id) == (3, str(ref.id))
    assert (given_up.schema_version, given_up.source) == (SCHEMA, "deltaloom")
    assert "opened_1" in str(given_up.alert)
    assert [each.outcome for each in await deliveries(stage.redis, stage.prefix)] == ["refused"]
    assert await stage.pending() == []


async def test_delivered_is_recorded_once(stage: Stage) -> None:
    """A call that runs twice records each delivery once; one that another relay recorded is left out."""
    await stage.raised(*map(str, range(RECORDED_AT_ONCE + 2)))
    first, *others = await stage.read()
    await stage.outbox.record_delivered([ended(first)])
    for _ in range(2):
        await stage.outbox.record_delivered([ended(each) for each in [first, *others]])
    recorded = [each.entry_id for each in await deliveries(stage.redis, stage.prefix)]
    assert recorded == [str(ref.id) for ref in [first, *others]]
    assert await stage.pending() == []


async def test_delivered_is_recorded_while_the_server_is_full(stage: Stage) -> None:
    """Otherwise a full server would keep delivered alerts pending, and its memory would stay full."""
    await stage.raised("1")
    (ref,) = await stage.read()
    await stage.redis.config_set("maxmemory", "1")
    try:
        await stage.outbox.record_delivered([ended(ref)])
    finally:
        await stage.redis.config_set("maxmemory", "0")
    assert await stage.pending() == []
    assert len(await deliveries(stage.redis, stage.prefix)) == 1


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
    for digest in (SavedDigest(refs), SavedDigest(refs, Confirmation("200", 2, FAILURE.failed_at))):
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


async def test_the_backlog_counts_on_after_an_erasure(stage: Stage) -> None:
    """Count unread alerts although the server's own number is lost after XDEL; unknown is not none."""
    await stage.raised("a", "b", "c", "d")
    (first,) = await stage.read(1)
    ids = [entry_id for entry_id, _ in await entries(stage.redis, stage.names.alerts)]
    await stage.redis.xdel(stage.names.alerts, ids[2])
    (info,) = await stage.redis.xinfo_groups(stage.names.alerts)
    assert info["lag"] is None
    backlog = await stage.outbox.backlog()
    assert (backlog.alerts, backlog.oldest_ms) == (3, first.id.ms)
