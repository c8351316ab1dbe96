"""The limit for this client: XREADGROUP and XACK, without any processing.

It gives no guarantee and no result: it is the maximum that redis-py with hiredis and uvloop can read.
"""

from __future__ import annotations

from typing import Any

import uvloop
from redis.asyncio import Redis

from bench.peers.settings import CONSUMER, COUNT, GROUP, NAMES, URL


async def main() -> None:
    """Read and acknowledge until the process is ended."""
    async with Redis.from_url(URL) as client:
        while True:
            reply: Any = await client.xreadgroup(GROUP, CONSUMER, {NAMES.deltas: ">"}, COUNT, 1000)
            for _, entries in reply:
                await client.xack(NAMES.deltas, GROUP, *[entry_id for entry_id, _ in entries])


if __name__ == "__main__":
    uvloop.run(main())
