"""Test the figures of a group whose oldest unread entry is large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deltaloom import GROUP, Partitions, StreamNames
from service.storage import group_figures
from service.storage.draining import left_over
from service.storage.group_figures import RedisFigures

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_a_large_entry_is_looked_at_rarely(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copy a large entry that nobody reads once a minute only; it would block the server each time.

    Each look that is left out is seen by an entry that was deleted in the meantime.
    """
    names = StreamNames(prefix)
    now_ms = int((await redis.time())[0]) * 1000
    for age_s, size in ((300, 1), (200, 1_100_000), (100, 1)):
        await redis.xadd(names.deltas, {"event": b"x" * size}, id=f"{now_ms - age_s * 1000}-1")
    await redis.xgroup_create(names.deltas, GROUP, id="0")
    figures = RedisFigures(redis, [names], in_cluster=False)

    async def oldest() -> int:
        return 100 * round((await figures.ask()).oldest_seconds / 100)

    assert await oldest() == 300
    await redis.xdel(names.deltas, f"{now_ms - 300_000}-1")
    assert await oldest() == 200  # a small entry is looked at each time
    await redis.xdel(names.deltas, f"{now_ms - 200_000}-1")
    assert await oldest() == 200
    monkeypatch.setattr(group_figures, "LARGE_EVERY", -1.0)
    assert await oldest() == 100
    monkeypatch.undo()
    await redis.xgroup_setid(names.deltas, GROUP, "$")
    assert await oldest() == 0


@pytest.mark.parametrize("read", [0, 3])
async def test_unread_entries_that_the_server_cannot_count(redis: Redis, prefix: str, read: int) -> None:
    """Say that their number is unknown, or that there are none, after an entry was deleted."""
    names = StreamNames(prefix)
    ids = [await redis.xadd(names.deltas, {"event": "x"}) for _ in range(3)]
    await redis.xgroup_create(names.deltas, GROUP, id="0")
    await redis.xdel(names.deltas, ids[1])
    if read:
        await redis.xreadgroup(GROUP, "one", {names.deltas: ">"}, count=read)
    assert (await redis.xinfo_groups(names.deltas))[0]["lag"] in ({None} if not read else {None, 0})
    assert (await left_over(redis, Partitions(0, prefix))).unread == (0 if read else None)
