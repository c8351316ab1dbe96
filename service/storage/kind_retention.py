"""Retention by kind: remove texts of some kinds earlier than others.

Theory of operation:

1. A text is in its stream, in its item and, for some kinds, in alerts and undelivered alerts. Deliveries have
   no text, but the response's ids. Each of these streams is searched for each kind, page by page, up to the
   first entry that is not old enough.
2. A worker removes the fields of a page's items, then the page's entries, then stores its progress. If it
   dies in between, the page is processed again.
3. The progress is in Redis and shared by all workers. Two workers may process the same page without harm.
4. An alert that a relay has yet to deliver is kept, with all alerts after it, until it is delivered, or is
   older than 25 hours and than the retention.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ValidationError

from service.ports.outbox import RELAY_PREFIX
from service.ports.storage import StorageUnavailableError
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.group import KEPT_FOR_RELAYS_MS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from service.keys import Keys

PAGE = 100
"""Maximum entries of a page. One call reads a page; with long texts it has a few megabytes."""

_BEGINNING = "0-0"


class _TextPosition(BaseModel):
    """The index of a text's item in its response, and of the text in that item."""

    output_index: int
    content_index: int


class _Old(NamedTuple):
    """An entry that is old enough to be removed.

    `response_id` and `item_id` are empty if the entry does not have them. `data` is its field `__data__`, a
    JSON text; empty without one.
    """

    entry_id: bytes
    response_id: bytes
    item_id: bytes
    data: bytes


class KindRetention:
    """Removes texts, and the entries about them, by kind and age in one partition.

    Args:
        client: client of the server.
        keys: keys of the partition.
        seconds: retention by kind, in seconds; texts of other kinds are not removed.
        longest: retention of all texts, in seconds; also the TTL of the stored progress.
    """

    def __init__(self, client: Redis, keys: Keys, seconds: Mapping[str, float], longest: float) -> None:
        self._client = client
        self._names = keys.names
        self._streams = {
            "assembled": keys.names.assembled,
            "alerts": keys.names.alerts,
            "undelivered": keys.names.undelivered,
            "deliveries": keys.names.deliveries,
        }
        self._progress = keys.kind_retention
        self._ages_ms = {kind: round(each * 1000) for kind, each in seconds.items()}
        self._longest = round(longest)
        self._aged = scripts.Script(client, "aged")

    async def remove_aged(self, keep_for: str = "") -> int:
        """Remove texts that are older than the retention of their kind, from their stream and their items.

        Also remove alerts, undelivered alerts and deliveries of the kind, by their own age. Texts, alerts and
        deliveries stay until the group `keep_for` has acknowledged their entries; "" for no group. If a
        stream lacks this group, all its entries stay. Undelivered alerts do not wait for it. An alert that a
        relay has yet to deliver stays as well, with all alerts after it, until it is older than the retention
        and than 25 hours.

        Return the number of removed entries. A text may have several: its own, and those of its alerts,
        undelivered alerts and deliveries. Texts removed from items are not counted.
        """
        removed = 0
        for kind, age_ms in self._ages_ms.items():
            for output, stream in self._streams.items():
                group = "" if output == "undelivered" else keep_for
                removed += await self._remove(output, stream, kind, age_ms, group)
        return removed

    async def _remove(self, output: str, stream: str, kind: str, age_ms: int, keep_for: str) -> int:
        field = f"{output}:{kind}"
        with unavailable_if_away(self._progress):
            noted = await self._client.hget(self._progress, field)
        after, removed = noted.decode() if isinstance(noted, bytes) else _BEGINNING, 0
        while True:
            with unavailable_if_away():
                last, looked_at, *entries = await self._aged(
                    keys=[stream],
                    args=[kind, after, age_ms, PAGE, RELAY_PREFIX, KEPT_FOR_RELAYS_MS, keep_for],
                )
            old = [_Old(*entry) for entry in entries]
            if output == "assembled":
                await self._remove_from_items(kind, old)
            if old:
                with unavailable_if_away(stream):
                    removed += await self._client.xdel(stream, *(each.entry_id for each in old))
            if looked_at:
                after = last.decode()
                await self._store_progress(field, after)
            if looked_at < PAGE:
                return removed

    async def _remove_from_items(self, kind: str, old: Sequence[_Old]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for each in old:
            stream_key = (each.response_id or each.item_id).decode()
            try:
                position = _TextPosition.model_validate_json(each.data)
            except ValidationError:  # another program wrote the entry, so it has no item
                continue
            item = self._names.item(stream_key, position.output_index)
            pipeline.hdel(item, f"{kind}:{position.content_index}")
        if len(pipeline):
            with unavailable_if_away():
                await pipeline.execute()

    async def _store_progress(self, field: str, entry_id: str) -> None:
        """Store the id of the last entry that was searched, and renew the TTL of all progress.

        `field` names the search: `<output>:<kind>`.

        An unavailable or full server raises no error here: the next search then begins earlier.
        """
        with contextlib.suppress(StorageUnavailableError), unavailable_if_away(self._progress):
            await self._client.hset(self._progress, field, entry_id)
            await self._client.expire(self._progress, self._longest)
