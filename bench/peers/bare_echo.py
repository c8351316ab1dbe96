"""The least that a worker can do to an entry: read it, XADD one with the same fields, acknowledge.

A pipeline for each read, so that it too takes many at once when many are there. It is what latency is
compared with: nothing that answers on a stream of its own can be much faster with this client.
"""

from __future__ import annotations

from typing import Any

import uvloop
from redis.asyncio import Redis

from bench.peers.settings import CONSUMER, COUNT, GROUP, NAMES, URL


async def main() -> None:
    """Read, add, acknowledge, until the process is ended."""
    async with Redis.from_url(URL) as client:
        while True:
            reply: Any = await client.xreadgroup(GROUP, CONSUMER, {NAMES.deltas: ">"}, COUNT, 1000)
            for _, entries in reply:
                pipeline = client.pipeline(transaction=False)
                for _, fields in entries:
                    pipeline.xadd(NAMES.assembled, fields)
                pipeline.xack(NAMES.deltas, GROUP, *[entry_id for entry_id, _ in entries])
                await pipeline.execute()


if __name__ == "__main__":
    uvloop.run(main())
