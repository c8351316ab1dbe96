"""The loop that someone writes who knows Redis: redis-py, pydantic models, pipelines for whole batches.

The deltas of a batch are joined by text, and each text grows by one APPEND, all in one pipeline. A second
pipeline, which needs the first one's replies, writes opened alerts and finished texts, and acknowledges. It
uses uvloop, hiredis and batches of 500 entries.

Its weaknesses: an entry that is delivered again (after a crash, or to another worker) is appended again,
since the state does not record which deltas it has. Entries of a dead worker are never taken over. If two
workers have deltas of one text, their order is lost. A producer's retry repeats deltas. An event that cannot
be read ends the loop. Texts without a `.done` are never written, and their keys stay. An entry can have one
event only.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import uvloop
from pydantic import TypeAdapter
from redis.asyncio import Redis

from bench.peers import outputs
from bench.peers.events import Delta, Done, Event, Other, place_of
from bench.peers.settings import CONSUMER, COUNT, GROUP, NAMES, URL, state_key

_event: TypeAdapter[Delta | Done | Other] = TypeAdapter(Event)


class Batch:
    """The changes of a batch."""

    def __init__(self) -> None:
        self.deltas: defaultdict[str, list[str]] = defaultdict(list)
        self.refusals: dict[str, tuple[str, Delta]] = {}
        """Refusals with deltas in this batch: response id and first delta."""
        self.done: dict[str, tuple[str, Done]] = {}

    def add(self, response_id: str, event: Delta | Done | Other) -> None:
        """Add an event."""
        if isinstance(event, Other):
            return
        place = place_of(event)
        key = state_key(response_id, *place)
        if isinstance(event, Delta):
            self.deltas[key].append(event.delta)
            if place[0] == "refusal":
                self.refusals.setdefault(key, (response_id, event))
        else:
            self.done[key] = (response_id, event)

    async def store(self, client: Redis, entry_ids: list[bytes]) -> None:
        """Append deltas, publish alerts and finished texts, acknowledge."""
        pipeline = client.pipeline(transaction=False)
        for key, deltas in self.deltas.items():
            pipeline.append(key, "".join(deltas))
        for key in self.done:
            pipeline.getdel(key)
        replies = await pipeline.execute() if self.deltas or self.done else []
        lengths = dict(zip(self.deltas, replies, strict=False))
        texts = dict(zip(self.done, replies[len(self.deltas) :], strict=True))
        pipeline = client.pipeline(transaction=False)
        for key, (response_id, delta) in self.refusals.items():
            text = "".join(self.deltas[key])
            if lengths[key] == len(text.encode()):  # the text was empty before
                _, output_index, index = place_of(delta)
                alert = outputs.opened(response_id, delta.item_id, output_index, index, text)
                pipeline.xadd(NAMES.alerts, outputs.fields(alert))  # type: ignore[arg-type]  # the type of a dict is invariant
        for key, (response_id, done) in self.done.items():
            text = (texts[key] or b"").decode()
            message = outputs.finished(response_id, done.item_id, *place_of(done), text)
            pipeline.xadd(NAMES.assembled, outputs.fields(message))  # type: ignore[arg-type]  # the type of a dict is invariant
        pipeline.xack(NAMES.deltas, GROUP, *entry_ids)
        await pipeline.execute()


async def run(batch_type: type[Batch]) -> None:
    """Read, process and acknowledge until the process is ended."""
    async with Redis.from_url(URL) as client:
        while True:
            reply: Any = await client.xreadgroup(GROUP, CONSUMER, {NAMES.deltas: ">"}, COUNT, 1000)
            for _, entries in reply:
                batch = batch_type()
                for _, fields in entries:
                    batch.add(fields[b"response_id"].decode(), _event.validate_json(fields[b"event"]))
                await batch.store(client, [entry_id for entry_id, _ in entries])


if __name__ == "__main__":
    uvloop.run(run(Batch))
