"""The producer: publishes a stream as its model would send it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from demo.pacing import publications

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames
    from demo.clock import Clock
    from demo.progress import Progress
    from demo.stream import Stream


async def replay(client: Redis, names: StreamNames, stream: Stream, progress: Progress, clock: Clock) -> None:
    """Publish a stream's events, each at its time.

    Entries carry the response id and the tenant; the worker learns the model from the events.
    """
    for publication in publications(stream):
        await asyncio.sleep(clock.until(publication.at))
        entry_id = await client.xadd(
            names.deltas,
            {"event": publication.body, "response_id": stream.response_id, "tenant": stream.name},
        )
        progress.published(stream, publication, str(entry_id), clock.now)
    progress.tracks[stream.response_id].all_sent = True
