"""Undelivered alerts are stored once, with all their fields; and a lease has one holder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import Partitions
from handlers.core.identity import EntryId
from service.ports.outbox import CONSUMER, EntryRef, Failure
from service.storage.redis_outbox import DestinationGroup, RedisLease, RedisOutbox
from tests.relays import ended, raise_alert
from tests.streams import entries, read_as

if TYPE_CHECKING:
    from tests.bench import Bench

FAILURE = Failure("refused", "400 no", 3, datetime(2026, 5, 4, 12, tzinfo=UTC))
TTL_MS = 60_000


async def pending(bench: Bench, *responses: str) -> tuple[RedisOutbox, list[EntryRef]]:
    """Raise alerts, read them as a destination's relay, and return its outbox and their references."""
    await DestinationGroup(bench.redis, bench.names.alerts, "here").ensure()
    for response in responses:
        await raise_alert(bench.redis, bench.prefix, "opened", response)
    read = await read_as(bench.redis, bench.names.alerts, "relay:here", CONSUMER, 10)
    places = [EntryRef(bench.names.alerts, EntryId.parse(entry_id.decode())) for entry_id, _ in read]
    return RedisOutbox(bench.redis, Partitions(prefix=bench.prefix), "here"), places


async def test_all_that_the_alert_had_is_kept(bench: Bench) -> None:
    """Otherwise an alert that a destination refused could not be sent again by hand."""
    outbox, (ref, other) = await pending(bench, "1", "2")
    await outbox.give_up(ended(ref, "refused"), FAILURE)
    ((_, alert), _) = await entries(bench.redis, bench.names.alerts)
    ((_, given_up),) = await entries(bench.redis, bench.names.undelivered)
    assert given_up.items() > alert.items()
    added = {name.decode(): value.decode() for name, value in given_up.items() if name not in alert}
    assert (
        added.items()
        >= {
            "destination": "here",
            "reason": "refused",
            "answer": "400 no",
            "attempts": "3",
            "failed_at": "2026-05-04T12:00:00.000+00:00",
            "entry_id": str(ref.id),
        }.items()
    )
    assert [entry.ref for entry in await outbox.still_pending([ref, other])] == [other]


async def test_what_was_delivered_meanwhile_is_not_given_up(bench: Bench) -> None:
    """Otherwise an alert that another relay has delivered would be stored as undelivered."""
    outbox, (ref,) = await pending(bench, "1")
    await outbox.acknowledge([ref])
    await outbox.give_up(ended(ref, "refused"), FAILURE)
    assert await entries(bench.redis, bench.names.undelivered) == []


async def test_an_alert_that_is_gone_is_given_up_without_its_words(bench: Bench) -> None:
    """Otherwise a relay would fail forever on an alert that was trimmed."""
    outbox, (ref,) = await pending(bench, "1")
    await bench.redis.xdel(ref.stream, str(ref.id))
    await outbox.give_up(ended(ref, "refused"), FAILURE)
    ((_, given_up),) = await entries(bench.redis, bench.names.undelivered)
    assert given_up[b"destination"] == b"here"
    assert b"__data__" not in given_up


@pytest.mark.parametrize("left_ms", [TTL_MS // 2, TTL_MS * 2])
async def test_a_lease_that_is_renewed_lasts_from_now_on(bench: Bench, left_ms: int) -> None:
    """Otherwise a working relay would lose its lease, and two relays would send the same alerts."""
    partitions = Partitions(prefix=bench.prefix)
    mine = RedisLease(bench.redis, partitions, "here", "mine")
    assert await mine.acquire(left_ms)
    assert await mine.acquire(TTL_MS)
    (key,) = await bench.redis.keys(f"{bench.prefix}:relay:here:lease")
    left: Any = await bench.redis.pttl(key)
    assert abs(left - TTL_MS) < TTL_MS // 4


async def test_a_lease_of_another_is_neither_taken_nor_prolonged_nor_released(bench: Bench) -> None:
    """Otherwise a standby relay would keep a dead one's lease alive, or take away that of a live one."""
    partitions = Partitions(prefix=bench.prefix)
    mine, theirs = (RedisLease(bench.redis, partitions, "here", name) for name in ("mine", "theirs"))
    assert await mine.acquire(TTL_MS)
    assert not await theirs.acquire(10 * TTL_MS)
    await theirs.release()
    (key,) = await bench.redis.keys(f"{bench.prefix}:relay:here:lease")
    assert 0 < await bench.redis.pttl(key) <= TTL_MS
    assert await bench.redis.get(key) == b"mine"
    await mine.release()
    assert await theirs.acquire(TTL_MS)
