"""A first attempt with FastStream: a handler per type of event, and state in Redis by APPEND.

Each message is filtered by type, validated by its model, appended or published, and acknowledged by
FastStream when its handler has returned.

It lacks what `hand_written.py` lacks. In addition, an entry with a failed handler stays pending, and is never
read again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import uvloop
from faststream import FastStream, Header
from faststream.redis import RedisBroker, RedisStreamMessage, StreamSub
from redis.asyncio import Redis

from bench.peers import outputs
from bench.peers.events import Delta, Done, place_of
from bench.peers.settings import CONSUMER, COUNT, GROUP, NAMES, URL, state_key
from deltaloom.events import (
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    RefusalDelta,
    RefusalDone,
)

broker = RedisBroker(URL, log_level=logging.DEBUG)
redis = Redis.from_url(URL)
_stream = StreamSub(NAMES.deltas, group=GROUP, consumer=CONSUMER, max_records=COUNT, polling_interval=1000)

ResponseId = Annotated[str, Header("response_id")]


async def parse(message: Any, original: Callable[[Any], Awaitable[RedisStreamMessage]]) -> RedisStreamMessage:
    """Return the message with the field `event` as body, and the other fields as headers."""
    parsed = await original(message)
    fields = message["data"]
    parsed.body = fields[b"event"]
    parsed.headers = {name.decode(): value.decode() for name, value in fields.items() if name != b"event"}
    parsed.content_type = "application/json"
    return parsed


def of_type(name: str) -> Callable[[RedisStreamMessage], Awaitable[bool]]:
    """Return a filter for messages with this type."""

    async def is_it(message: RedisStreamMessage) -> bool:
        event: Any = await message.decode()
        return bool(event["type"] == name)

    return is_it


subscriber = broker.subscriber(stream=_stream, parser=parse, no_reply=True)


async def append(response_id: str, delta: Delta) -> bool:
    """Append a delta to a text, and return whether it was the first."""
    length = await redis.append(state_key(response_id, *place_of(delta)), delta.delta)
    return int(length) == len(delta.delta.encode())


async def publish(response_id: str, done: Done) -> None:
    """Publish a text, and delete its state."""
    place = place_of(done)
    text: Any = await redis.getdel(state_key(response_id, *place)) or b""
    message = outputs.finished(response_id, done.item_id, *place, text.decode())
    await broker.publish(message, stream=NAMES.assembled)


@subscriber(filter=of_type("response.refusal.delta"))
async def refusal_delta(event: RefusalDelta, response_id: ResponseId) -> None:
    """Append the delta, and raise an alert if it is the first."""
    if await append(response_id, event):
        alert = outputs.opened(
            response_id, event.item_id, event.output_index, event.content_index, event.delta
        )
        await broker.publish(alert, stream=NAMES.alerts)


@subscriber(filter=of_type("response.refusal.done"))
async def refusal_done(event: RefusalDone, response_id: ResponseId) -> None:
    """Publish the refusal."""
    await publish(response_id, event)


@subscriber(filter=of_type("response.reasoning_text.delta"))
async def reasoning_delta(event: ReasoningTextDelta, response_id: ResponseId) -> None:
    """Append the delta."""
    await append(response_id, event)


@subscriber(filter=of_type("response.reasoning_text.done"))
async def reasoning_done(event: ReasoningTextDone, response_id: ResponseId) -> None:
    """Publish the reasoning."""
    await publish(response_id, event)


@subscriber(filter=of_type("response.reasoning_summary_text.delta"))
async def summary_delta(event: ReasoningSummaryTextDelta, response_id: ResponseId) -> None:
    """Append the delta."""
    await append(response_id, event)


@subscriber(filter=of_type("response.reasoning_summary_text.done"))
async def summary_done(event: ReasoningSummaryTextDone, response_id: ResponseId) -> None:
    """Publish the summary."""
    await publish(response_id, event)


@subscriber
async def anything_else() -> None:
    """Acknowledge other messages, which would stay pending without a matching handler."""


if __name__ == "__main__":
    uvloop.run(FastStream(broker, logger=None).run())
