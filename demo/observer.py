"""The observer: reads the worker's output as any subscriber would, and detects when all is done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from deltaloom.messages import AssembledText, DeadLetter, ModerationAlert
from demo.progress import Arrived

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.typing import KeyT, StreamIdT

    from deltaloom.streams import StreamNames
    from demo.clock import Clock
    from demo.progress import Progress

_BLOCK_MS = 500

_Reply = list[tuple[str, list[tuple[str, dict[str, str]]]]]


async def follow(client: Redis, names: StreamNames, progress: Progress, clock: Clock) -> None:
    """Read texts, alerts and dead letters from their beginning, until cancelled."""
    after: dict[KeyT, StreamIdT] = dict.fromkeys((names.assembled, names.alerts, names.dead_letters), "0-0")
    while True:
        reply = cast("_Reply", await client.xread(after, block=_BLOCK_MS))
        for stream, entries in reply:
            for entry_id, fields in entries:
                after[stream] = entry_id
                _take(stream, entry_id, fields, names, progress, clock.now)


def _take(
    stream: str, entry_id: str, fields: dict[str, str], names: StreamNames, progress: Progress, now: float
) -> None:
    if stream == names.assembled:
        text = AssembledText.model_validate_json(fields["__data__"])
        progress.text_came(Arrived(entry_id, text), now)
    elif stream == names.alerts:
        alert = ModerationAlert.model_validate_json(fields["__data__"])
        progress.alert_came(Arrived(entry_id, alert), now)
    else:
        letter = DeadLetter.model_validate_strings(fields)
        response_id = json.loads(letter.entry).get("response_id")
        progress.letter_came(Arrived(entry_id, letter), response_id, now)


async def all_read(client: Redis, names: StreamNames) -> bool:
    """Return whether a worker has begun to read the input, and a relay the alerts."""
    for stream in (names.deltas, names.alerts):
        groups = await client.xinfo_groups(stream) if await client.exists(stream) else ()
        if not any(group["consumers"] for group in groups):
            return False
    return True


async def settled(client: Redis, names: StreamNames, progress: Progress) -> bool:
    """Return whether all input and alerts are acknowledged, and the observer has seen all the output."""
    for stream in (names.deltas, names.alerts):
        newest = (await client.xinfo_stream(stream))["last-generated-id"]
        for group in await client.xinfo_groups(stream):
            if group["pending"] or group["last-delivered-id"] != newest:
                return False
    written = [await client.xlen(name) for name in (names.assembled, names.alerts, names.dead_letters)]
    return written == [len(progress.texts), len(progress.alerts), len(progress.letters)]
