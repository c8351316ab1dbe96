"""FastStream in batch mode with `list[Published]`: its models validate, pipelines do the rest.

The same as `hand_written.py`, read through FastStream: a parser and a decoder, as its documentation has them,
take the event and the response id from an entry's fields; FastStream hands a list of models to the handler.

What it does not have is what the hand-written one does not have; besides, one event that does not validate
fails the batch of 500, and all of it stays pending.
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
    """The entries as they are."""
    return StreamMessage(raw_message=message, body=b"", message_id=message["message_ids"][0].decode())


async def decode(message: StreamMessage[Any]) -> list[dict[str, Any]]:
    """What the models are made of."""
    return [
        {"response_id": fields[b"response_id"].decode(), "event": from_json(fields[b"event"])}
        for fields in message.raw_message["data"]
    ]


@broker.subscriber(stream=_stream, parser=parse, decoder=decode, ack_policy=AckPolicy.MANUAL, no_reply=True)
async def take(published: list[Published], message: RedisMessage) -> None:
    """Append, publish what is finished, acknowledge."""
    batch = Batch()
    for each in published:
        batch.add(each.response_id, each.event)
    client: Any = broker._connection  # noqa: SLF001 - the connection it has is the one a user would take
    raw: Any = message.raw_message
    await batch.store(client, raw["message_ids"])


if __name__ == "__main__":
    uvloop.run(FastStream(broker, logger=None).run())
