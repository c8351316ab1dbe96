"""Publish a response's streaming events with FastStream, as an array in one entry."""

import asyncio
import os

from faststream.redis import RedisBroker

stream = os.environ.get("DELTALOOM_PREFIX", "deltaloom") + ":deltas"

part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
events = [
    {"type": "response.refusal.delta", "sequence_number": 1, "delta": "I'm sorry,", **part},
    {"type": "response.refusal.delta", "sequence_number": 2, "delta": " but no.", **part},
    {"type": "response.refusal.done", "sequence_number": 3, "refusal": "I'm sorry, but no.", **part},
]


async def main() -> None:
    async with RedisBroker(os.environ.get("REDIS_URL", "redis://localhost:6379")) as broker:
        await broker.publish(events, stream=stream, headers={"response_id": "resp_faststream"})


asyncio.run(main())
