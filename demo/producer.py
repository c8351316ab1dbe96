"""The producer: publishes a stream as its model would send it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from demo.pacing import publications

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames
    from demo.clock import Clock
    from demo.progress import Progress
    from demo.stream import Stream


async def replay(client: Redis, names: StreamNames, stream: Stream, progress: Progress, clock: Clock) -> None:
    """Publish a stream's events, each at its time.

    Entries carry the response id and the tenant, and of a translated stream also its provider, dialect and
    model. The worker learns the model of the others from the events.
    """
    for publication in publications(stream):
        await asyncio.sleep(clock.until(publication.at))
        fields: Any = {"event": publication.body, **stream.context}
        entry_id = await client.xadd(names.deltas, fields)
        progress.published(stream, publication, str(entry_id), clock.now)
    progress.tracks[stream.response_id].all_sent = True
