"""The minimum that a worker can do: read an entry, XADD one with the same fields, acknowledge.

It uses one pipeline per read, so that it also processes many entries at once if they are there. Latencies are
compared with it: a worker with this client that answers on a stream cannot be much faster.
"""

from __future__ import annotations

from typing import Any

import uvloop
from redis.asyncio import Redis

from bench.peers.settings import CONSUMER, COUNT, GROUP, NAMES, URL


async def main() -> None:
    """Read, add and acknowledge until the process is ended."""
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
