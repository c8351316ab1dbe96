"""Entry ids that producers choose: the harm they can do, and the remedy."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ResponseError

from deltaloom import StreamNames
from tests.waiting import wait_until
from tests.workers import running_workers, texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

PART = {"output_index": 0, "content_index": 0}
REFUSAL: tuple[dict[str, Any], ...] = (
    {"type": "response.refusal.delta", "sequence_number": 1, "delta": "No.", **PART},
    {"type": "response.refusal.done", "sequence_number": 2, "refusal": "No.", **PART},
)


def entry(event: dict[str, Any]) -> dict[Any, Any]:
    """Return the fields of an event's entry."""
    return {"event": json.dumps(event), "response_id": "resp_1"}


async def test_a_stream_whose_ids_are_used_up_goes_on_when_it_is_deleted(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A stream with the highest possible entry id accepts no more entries; deleting the stream repairs it."""
    stream, highest = StreamNames(prefix).deltas, str(2**64 - 1)
    first, last = map(entry, REFUSAL)
    async with running_workers(redis_url, prefix) as (worker,):
        await redis.xadd(stream, first)
        await redis.xadd(stream, {"event": json.dumps({"type": "other"})}, id=f"{highest}-{highest}")
        with pytest.raises(ResponseError, match="exhausted the last possible ID"):
            await redis.xadd(stream, last)
        await wait_until_settled(redis, prefix)
        await redis.delete(stream)
        await wait_until(
            partial(worker.has_logged, "redis available again"), message="the group is made again"
        )
        await redis.xadd(stream, last)
        await wait_until_settled(redis, prefix)
        (text,) = await texts(redis, prefix)
        assert (text.text, text.status, text.integrity) == ("No.", "completed", "verified")


async def test_an_id_in_the_future_holds_nothing_open(redis: Redis, redis_url: str, prefix: str) -> None:
    """An id in the future delays no later text: times of activity are limited to the server's time."""
    stream = StreamNames(prefix).deltas
    async with workers_in_process(redis_url, prefix, idle_timeout=1, sweep_interval=0.2):
        await redis.xadd(stream, {"event": json.dumps({"type": "other"})}, id="99999999999999-0")
        await redis.xadd(stream, entry(REFUSAL[0]))
        (text,) = await wait_until(partial(texts, redis, prefix), message="it is given up")
        assert (text.status, text.reason) == ("abandoned", "idle_timeout")
        assert text.started_at is not None
        assert text.started_at.year < 2100
