"""How much a worker reads at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaloom import GROUP
from service.patience import Patience
from service.settings import Settings
from service.storage.connection import patient_client_of
from service.storage.patient import BATCH_BYTES, Input
from tests.bench import Bench, delta

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_fewer_large_entries_are_read_at_once(redis: Redis, redis_url: str, prefix: str) -> None:
    """A batch of arrays would keep the server, and who waits for a text, for long."""
    bench = Bench(redis, prefix)
    group = bench.consumer().group
    await group.ensure()
    stream = bench.names.deltas
    client = patient_client_of(Settings(redis_url=redis_url).address, {stream: Input(group, Patience())})
    try:
        for expected in (40, 10):
            await bench.publish(*[delta(n, "x" * (BATCH_BYTES // 10 - 1000)) for n in range(40)])
            reply: Any = await client.xreadgroup(GROUP, "one", {stream: ">"}, count=5000)
            ((_, ((last_id, entries),)),) = reply
            assert len(entries) == expected
            assert last_id == entries[-1][0]
    finally:
        await client.aclose()
