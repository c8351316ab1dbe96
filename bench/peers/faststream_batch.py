"""FastStream in batch mode with `list[Published]`: its models validate, and pipelines do the rest.

It works like `hand_written.py`, but reads through FastStream: a parser and a decoder, as in its
documentation, take the event and the response id from an entry's fields, and FastStream passes a list of
models to the handler.

It lacks what the hand-written one lacks. In addition, one event that does not validate fails the batch of
500, which then stays pending.
"""

from __future__ import annotations

import logging
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.message import StreamMessage
from faststream.redis import RedisBroker, RedisMessage, StreamSub
from pydantic import BaseModel
from pydantic_core import from_json

from bench.peers.events import Event
from bench.peers.hand_written import Batch
from bench.peers.settings import CONSUMER, COUNT, GROUP, NAMES, URL


class Published(BaseModel):
    """An entry of the input."""

    response_id: str
    event: Event


broker = RedisBroker(URL, log_level=logging.DEBUG)
_stream = StreamSub(
    NAMES.deltas, group=GROUP, consumer=CONSUMER, batch=True, max_records=COUNT, polling_interval=1000
)


async def parse(message: Any) -> StreamMessage[Any]:
    """Return the entries unchanged."""
    return StreamMessage(raw_message=message, body=b"", message_id=message["message_ids"][0].decode())


async def decode(message: StreamMessage[Any]) -> list[dict[str, Any]]:
    """Return the data that the models validate."""
    return [
        {"response_id": fields[b"response_id"].decode(), "event": from_json(fields[b"event"])}
        for fields in message.raw_message["data"]
    ]


@broker.subscriber(stream=_stream, parser=parse, decoder=decode, ack_policy=AckPolicy.MANUAL, no_reply=True)
async def take(published: list[Published], message: RedisMessage) -> None:
    """Append deltas, publish finished texts, acknowledge."""
    batch = Batch()
    for each in published:
        batch.add(each.response_id, each.event)
    client: Any = broker._connection  # noqa: SLF001 - a user would take the connection that it has
    raw: Any = message.raw_message
    await batch.store(client, raw["message_ids"])


if __name__ == "__main__":
    uvloop.run(FastStream(broker, logger=None).run())
