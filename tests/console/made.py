"""Events for the console's tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis


def delta(number: int, text: str, kind: str = "refusal") -> dict[str, Any]:
    """Return a delta."""
    return {
        "type": f"response.{kind}.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "sequence_number": number,
        "delta": text,
    }


def done(number: int, text: str) -> dict[str, Any]:
    """Return the end of a refusal."""
    return {**delta(number, ""), "type": "response.refusal.done", "refusal": text}


async def publish(
    redis: Redis, prefix: str, response_id: str, *events: dict[str, Any], **context: str
) -> None:
    """Add events to the input, each as an entry."""
    for event in events:
        fields: Any = {"event": json.dumps(event), "response_id": response_id, **context}
        await redis.xadd(f"{prefix}:deltas", fields)
