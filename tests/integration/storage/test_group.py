"""Tests of the consumer group: claiming, adopting, renewing and releasing entries, and trimming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from deltaloom import GROUP
from handlers.core.identity import StreamKey
from service.ports.storage import Claim
from service.storage import group
from service.storage.redis_rates import RedisRates
from tests.bench import KEEPALIVE, Bench
from tests.mortal import MortalServer
from tests.streams import entries
from tests.waiting import wait_until
from tests.workers import counts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from service.ports.storage import RawEntry
    from tests.bench import Consumer

HOUR_MS = 3_600_000
LONG_MS = 60_000


async def held(bench: Bench, name: str, count: int) -> tuple[Consumer, list[str]]:
    """Publish entries, read them with a consumer, and return it with their ids."""
    await bench.publish(*[KEEPALIVE] * count)
    consumer = bench.consumer(name)
    return consumer, ids_of(await consumer.read())


def ids_of(entries: Sequence[RawEntry]) -> list[str]:
    """Return the ids of entries."""
    return [entry.id.decode() for entry in entries]


async def make_idle(bench: Bench, name: str, ids: Sequence[str], idle_ms: int = LONG_MS) -> None:
    """Set the idle time of a consumer's pending entries."""
    await bench.redis.xclaim(bench.names.deltas, GROUP, name, 0, list(ids), idle=idle_ms, justid=True)


async def holders(bench: Bench) -> dict[str, tuple[str, int, int]]:
    """Return consumer, idle time in milliseconds and number of deliveries of each pending entry."""
    found: Any = await bench.redis.xpending_range(bench.names.deltas, GROUP, "-", "+", 1000)
    return {
        each["message_id"].decode(): (
            each["consumer"].decode(),
            each["time_since_delivered"],
            each["times_delivered"],
        )
        for each in found
    }


# ----------------------------------------------------------------------------------------------- claim


async def test_what_was_held_for_long_is_claimed_and_nothing_else(bench: Bench) -> None:
    """Otherwise a worker would claim entries of one that is busy, or leave those of a dead one."""
    _, ids = await held(bench, "dead", 3)
    await make_idle(bench, "dead", ids[:2])
    claim = await bench.consumer("heir").group.claim(LONG_MS // 2, "0-0")
    assert claim == Claim("0-0", [], {ids[0]: 1, ids[1]: 1})
    assert {entry: holder for entry, (holder, _, _) in (await holders(bench)).items()} == {
        ids[0]: "heir",
        ids[1]: "heir",
        ids[2]: "dead",
    }


async def test_claiming_is_no_delivery(bench: Bench) -> None:
    """Otherwise an entry would become a dead letter after several claims, without being processed."""
    _, ids = await held(bench, "dead", 1)
    await bench.consumer("dead").group.deliver(ids, 3)
    for name in ("one", "two"):
        await make_idle(bench, "dead", ids)
        claim = await bench.consumer(name).group.claim(LONG_MS // 2, "0-0")
        assert claim.deliveries == {ids[0]: 3}


async def test_many_entries_are_claimed_in_several_calls(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a large backlog would be one script that blocks the server, or its end never be claimed."""
    monkeypatch.setattr(group, "MAX_ENTRIES", 3)
    _, ids = await held(bench, "dead", 7)
    await make_idle(bench, "dead", ids)
    heir, cursor, calls = bench.consumer("heir").group, "0-0", []
    while True:
        claim = await heir.claim(LONG_MS // 2, cursor)
        calls.append(list(claim.deliveries))
        cursor = claim.cursor
        if cursor == "0-0":
            break
    assert calls == [ids[:3], ids[3:6], ids[6:]]


async def test_what_is_behind_many_busy_entries_is_claimed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise entries of a dead worker would never be found behind those of a busy one."""
    monkeypatch.setattr(group, "MAX_ENTRIES", 1)  # XAUTOCLAIM scans ten times this number in one call
    await held(bench, "busy", 25)
    _, ids = await held(bench, "dead", 1)
    await make_idle(bench, "dead", ids)
    heir, cursor, claimed = bench.consumer("heir").group, "0-0", []
    for _ in range(4):
        claim = await heir.claim(LONG_MS // 2, cursor)
        cursor = claim.cursor
        claimed += list(claim.deliveries)
    assert claimed == ids


async def test_what_was_trimmed_while_pending_is_named_and_counted(bench: Bench) -> None:
    """Otherwise nobody would learn how many entries were lost, or which."""
    _, ids = await held(bench, "dead", 4)
    await make_idle(bench, "dead", ids)
    await bench.redis.xdel(bench.names.deltas, ids[1], ids[2])
    claim = await bench.consumer("heir").group.claim(LONG_MS // 2, "0-0")
    assert (list(claim.lost), list(claim.deliveries)) == ([ids[1], ids[2]], [ids[0], ids[3]])
    assert await counts(bench.redis, bench.prefix) == {"lost": 2}


async def test_nothing_is_counted_as_lost_where_nothing_was(bench: Bench) -> None:
    """Otherwise a healthy partition would have a count of lost entries."""
    await held(bench, "alive", 1)
    await bench.consumer("heir").group.claim(0, "0-0")
    assert await counts(bench.redis, bench.prefix) == {}


# ----------------------------------------------------------------------------------- adopt, renew, leave


async def test_a_worker_adopts_from_its_former_self_alone(bench: Bench) -> None:
    """Otherwise a starting worker would take the entries of all others, and each would be processed twice."""
    _, gone = await held(bench, "gone", 2)
    _, busy = await held(bench, "busy", 2)
    await bench.consumer("gone").group.deliver(gone[:1], 4)
    heir = bench.consumer("heir").group
    assert await heir.adopt("gone") == {gone[0]: 4, gone[1]: 1}
    found = await holders(bench)
    assert [found[entry][0] for entry in (*gone, *busy)] == ["heir", "heir", "busy", "busy"]
    assert [found[entry][2] for entry in gone] == [4, 1]
    assert await heir.adopt("gone") == {}


async def test_many_entries_are_adopted_in_several_calls(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise entries beyond the first call would wait for the claim time."""
    monkeypatch.setattr(group, "MAX_ENTRIES", 2)
    _, ids = await held(bench, "gone", 3)
    heir = bench.consumer("heir").group
    assert [list(await heir.adopt("gone")) for _ in range(3)] == [ids[:2], ids[2:], []]


async def test_renewed_entries_do_not_look_abandoned(bench: Bench) -> None:
    """Otherwise a worker with a long batch would lose its entries to others."""
    slow, ids = await held(bench, "slow", 3)
    await make_idle(bench, "slow", ids)
    await slow.group.renew([ids[0].encode(), ids[2].encode()])
    found = await holders(bench)
    assert [found[entry][1] < LONG_MS // 2 for entry in ids] == [True, False, True]
    assert [found[entry][2] for entry in ids] == [1, 1, 1], "renewing is no delivery"


async def test_many_entries_are_renewed_in_several_calls(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise renewing a backlog would block the server for half a second each time."""
    monkeypatch.setattr(group, "MAX_ENTRIES", 3)
    slow, ids = await held(bench, "slow", 7)
    await make_idle(bench, "slow", ids)
    await bench.redis.config_resetstat()
    await slow.group.renew([entry.encode() for entry in ids])
    assert (await bench.redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == 3
    claim = await bench.consumer("heir").group.claim(LONG_MS // 2, "0-0")
    assert not claim.deliveries


async def test_a_worker_does_not_renew_what_it_has_lost(bench: Bench) -> None:
    """Otherwise a worker that was suspended would take entries back from the one that claimed them."""
    slow, ids = await held(bench, "slow", 2)
    await make_idle(bench, "other", ids[:1])
    await bench.redis.xack(bench.names.deltas, GROUP, ids[1])
    await slow.group.renew([entry.encode() for entry in ids])
    found = await holders(bench)
    assert {entry: holder for entry, (holder, _, _) in found.items()} == {ids[0]: "other"}
    assert found[ids[0]][1] >= LONG_MS


async def test_the_entries_of_a_leaving_worker_are_free_at_once(bench: Bench) -> None:
    """Otherwise each rolling restart would delay texts by the claim time, or release entries of others."""
    leaving, ids = await held(bench, "leaving", 2)
    _, others = await held(bench, "other", 1)
    assert await leaving.group.leave() == 2
    found = await holders(bench)
    assert [found[entry][1] > 10 * LONG_MS for entry in (*ids, *others)] == [True, True, False]
    assert [found[entry][0] for entry in (*ids, *others)] == ["leaving", "leaving", "other"]
    assert [found[entry][2] for entry in ids] == [1, 1], "leaving is no delivery"
    assert set(await leaving.group.consumers()) == {"leaving", "other"}


async def test_many_entries_are_released_in_several_calls(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise some entries of a leaving worker would stay locked, or leaving would never end."""
    monkeypatch.setattr(group, "MAX_ENTRIES", 2)
    leaving, ids = await held(bench, "leaving", 4)
    assert await leaving.group.leave() == 4
    assert all(idle > 10 * LONG_MS for _, idle, _ in (await holders(bench)).values())
    assert set(await leaving.group.consumers()) == {"leaving"}, "removing it would lose what it holds"
    await bench.redis.xack(bench.names.deltas, GROUP, *ids)
    await leaving.group.leave()
    assert await leaving.group.consumers() == []


async def test_only_consumers_that_are_silent_and_hold_nothing_are_removed(bench: Bench) -> None:
    """Otherwise the entries of a removed consumer would be lost, or a live worker's consumer be removed."""
    await held(bench, "holds", 1)
    for name in ("empty", "other"):
        await bench.redis.xgroup_createconsumer(bench.names.deltas, GROUP, name)
    alive = bench.consumer("alive").group
    assert await alive.remove_idle_consumers(LONG_MS) == []
    assert sorted(await alive.remove_idle_consumers(-1)) == ["empty", "other"]
    assert set(await alive.consumers()) - {"alive"} == {"holds"}


async def test_a_worker_that_waits_stays_listed(bench: Bench) -> None:
    """A worker that reads nothing for long, such as while memory is full, is no idle consumer for anybody."""
    await bench.consumer("waits").group.ensure()
    await bench.redis.xgroup_createconsumer(bench.names.deltas, GROUP, "waits")

    async def seen() -> tuple[int, int]:
        """Return the server's time, and that at which it has seen the consumer last, in milliseconds."""
        async with bench.redis.pipeline(transaction=True) as pipeline:
            pipeline.time()
            pipeline.xinfo_consumers(bench.names.deltas, GROUP)
            (seconds, microseconds), (waits,) = await pipeline.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        return now_ms, now_ms - waits["idle"]

    _, before = await seen()

    async def is_idle() -> bool:
        return (await seen())[0] > before + 100

    await wait_until(is_idle)
    assert await bench.consumer("waits").group.remove_idle_consumers(50) == []
    assert (await seen())[1] > before + 50


# ------------------------------------------------------------------------------------------------ trim


async def add_of_age(bench: Bench, stream: str, hours: float, count: int = 300) -> None:
    """Add entries that are this many hours old, with ids of one millisecond.

    Servers trim nodes of 100 entries.
    """
    at = await bench.now_ms() - round(hours * HOUR_MS)
    pipeline = bench.redis.pipeline(transaction=False)
    for number in range(1, count + 1):
        pipeline.xadd(stream, {"__data__": "{}"}, id=f"{at}-{number}")
    await pipeline.execute()


@pytest.fixture
async def outputs(bench: Bench) -> list[str]:
    """Return the streams that are trimmed by age, each with 300 entries that are two days old."""
    names = bench.names
    streams = [names.assembled, names.alerts, names.dead_letters, names.undelivered]
    for stream in streams:
        await add_of_age(bench, stream, 48)
    await bench.consumer().group.ensure()
    return streams


async def lengths(bench: Bench, streams: Sequence[str]) -> list[int]:
    """Return the number of entries of each stream."""
    return [len(await entries(bench.redis, stream)) for stream in streams]


async def test_every_output_is_trimmed_by_age(bench: Bench, outputs: list[str]) -> None:
    """Otherwise texts would stay in a stream forever, or be removed before their time."""
    trimming = bench.consumer().group
    await trimming.trim(49 * HOUR_MS)
    assert await lengths(bench, outputs) == [300] * 4
    await trimming.trim(47 * HOUR_MS)
    assert await lengths(bench, outputs) == [0] * 4


async def test_an_output_that_is_not_there_holds_up_no_other(bench: Bench, outputs: list[str]) -> None:
    """Otherwise a partition without dead letters would never be trimmed."""
    await bench.redis.delete(outputs[0], outputs[2])
    await bench.consumer().group.trim(HOUR_MS)
    assert await lengths(bench, outputs) == [0] * 4


async def test_a_large_backlog_is_trimmed_in_several_calls(
    bench: Bench, outputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a large output would shrink by one call per period, and grow faster than that."""
    monkeypatch.setattr(group, "TRIMMED_AT_ONCE", 100)
    await bench.consumer().group.trim(HOUR_MS)
    assert await lengths(bench, outputs) == [0] * 4


async def test_one_call_trims_no_more_than_it_may(
    bench: Bench, outputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the server would block while years of texts are trimmed in one call."""
    replies: list[list[int]] = []

    async def once(keys: list[str], args: list[Any]) -> list[int]:
        reply: list[int] = await real(keys=keys, args=[args[0], 100, *args[2:]])
        replies.append(reply)
        return [0] * len(reply)

    trimming = bench.consumer().group
    real = trimming._scripts["trim"]  # noqa: SLF001 - the test counts single calls
    monkeypatch.setitem(trimming._scripts, "trim", once)  # noqa: SLF001
    await trimming.trim(HOUR_MS)
    assert replies == [[0, 400, 0, 0, 0]]
    assert await lengths(bench, outputs) == [200] * 4


async def test_the_readers_of_an_output_do_not_keep_it(bench: Bench, outputs: list[str]) -> None:
    """Otherwise one unused archive group would fill Redis."""
    for stream in outputs:
        await add_of_age(bench, stream, 2)
        await bench.redis.xgroup_create(stream, "archive", id="0")
    await bench.consumer().group.trim(HOUR_MS)
    assert await lengths(bench, outputs) == [0] * 4


async def relay_reads(bench: Bench, name: str, count: int, acknowledged: int = 0) -> None:
    """Read alerts from the beginning with a relay's group, and acknowledge the first of them."""
    alerts = bench.names.alerts
    await bench.redis.xgroup_create(alerts, f"relay:{name}", id="0")
    read: Any = await bench.redis.xreadgroup(f"relay:{name}", "relay", {alerts: ">"}, count=count)
    ids = [entry_id for entry_id, _ in read[0][1]] if read else []
    if acknowledged:
        await bench.redis.xack(alerts, f"relay:{name}", *ids[:acknowledged])


async def test_what_the_slowest_relay_has_yet_to_deliver_is_kept(bench: Bench) -> None:
    """Otherwise an alert would be trimmed before a destination that is down is back."""
    await add_of_age(bench, bench.names.alerts, 2)
    await bench.consumer().group.ensure()
    await relay_reads(bench, "fast", 300, 300)
    await relay_reads(bench, "slow", 300, 150)
    await relay_reads(bench, "z-fast", 300, 200)
    await bench.consumer().group.trim(HOUR_MS)
    assert await lengths(bench, [bench.names.alerts]) == [200], "a node that a relay needs stays whole"


async def test_what_no_relay_needs_is_kept_for_its_time(bench: Bench) -> None:
    """Otherwise alerts would be removed as soon as they are delivered, and could not be looked up."""
    await add_of_age(bench, bench.names.alerts, 2)
    await bench.consumer().group.ensure()
    await relay_reads(bench, "slow", 300, 150)
    await bench.consumer().group.trim(3 * HOUR_MS)
    assert await lengths(bench, [bench.names.alerts]) == [300]


async def test_a_relay_that_is_gone_keeps_alerts_for_a_day_and_no_longer(bench: Bench) -> None:
    """Otherwise the group of a removed destination would fill Redis."""
    await add_of_age(bench, bench.names.alerts, 27)
    await add_of_age(bench, bench.names.alerts, 23)
    await bench.consumer().group.ensure()
    await relay_reads(bench, "gone", 10)
    await bench.consumer().group.trim(HOUR_MS)
    assert await lengths(bench, [bench.names.alerts]) == [300]


async def test_a_long_retention_goes_before_the_relays_day(bench: Bench) -> None:
    """Otherwise the group of a removed destination would shorten a long retention."""
    await add_of_age(bench, bench.names.alerts, 48)
    await bench.consumer().group.ensure()
    await relay_reads(bench, "gone", 10)
    await bench.consumer().group.trim(72 * HOUR_MS)
    assert await lengths(bench, [bench.names.alerts]) == [300]


async def test_the_input_is_trimmed_behind_the_slowest_group(bench: Bench) -> None:
    """Otherwise entries would be trimmed that a group has not acknowledged, or none ever."""
    await add_of_age(bench, bench.names.deltas, 1)
    consumer = bench.consumer()
    read = await consumer.read(300)
    for name in ("archive", "z-audit"):
        await bench.redis.xgroup_create(bench.names.deltas, name, id="$")
    await bench.redis.xack(bench.names.deltas, GROUP, *ids_of(read[:150]))
    assert await consumer.group.trim(HOUR_MS) == 100
    assert await lengths(bench, [bench.names.deltas]) == [200]
    await bench.redis.xack(bench.names.deltas, GROUP, *ids_of(read[150:]))
    assert await consumer.group.trim(HOUR_MS) == 100, "the last entry that was delivered stays, with its node"
    assert await lengths(bench, [bench.names.deltas]) == [100]


# ------------------------------------------------------------------------------------------ a full server


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a partition on a server that is out of memory, where the consumer `one` holds entries."""
    server = await MortalServer(tmp_path).start()
    async with Redis.from_url(server.url) as redis:
        bench = Bench(redis, "deltaloom")
        await add_of_age(bench, bench.names.deltas, 1)
        await add_of_age(bench, bench.names.assembled, 2)
        read = await bench.consumer().read(300)
        await redis.xack(bench.names.deltas, GROUP, *ids_of(read[:250]))
        await redis.config_set("maxmemory", "1")
        with pytest.raises(OutOfMemoryError):
            await redis.set("one", "more")
        yield bench
    await server.kill()


async def test_a_full_server_is_trimmed(full: Bench) -> None:
    """Otherwise a server that is full once would stay full."""
    assert await full.consumer().group.trim(HOUR_MS) == 200
    assert await lengths(full, [full.names.assembled]) == [0]


async def test_what_a_full_server_has_can_be_read(full: Bench) -> None:
    """Otherwise operators could not inspect a server that is out of memory."""
    rates = RedisRates(full.redis, full.settings)
    assert (await rates.counted(await rates.now_ms())).window == {}
    (loaded,) = await full.storage.load([StreamKey("response", "resp_1")])
    assert loaded.log_bytes == {}


async def test_a_worker_renews_and_releases_entries_of_a_full_server(full: Bench) -> None:
    """Otherwise a worker that waits for memory would lose its entries, or could not be stopped."""
    consumer, ids = full.consumer(), list(await holders(full))
    await make_idle(full, "one", ids)
    await consumer.group.renew([entry.encode() for entry in ids])
    assert max(idle for _, idle, _ in (await holders(full)).values()) < LONG_MS
    assert await consumer.group.leave() == 50
    assert min(idle for _, idle, _ in (await holders(full)).values()) > 10 * LONG_MS
