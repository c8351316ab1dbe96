"""Test a copied stream on its way through a worker: the text is what the caller got."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import redis as redis_py

from deltaloom import StreamNames, tee
from tests.client.dialects.streams import SAMPLES
from tests.workers import alerts, dead_letters, texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis


class Xadd:
    """A publisher that writes each event at once, one an entry."""

    def __init__(self, client: redis_py.Redis, prefix: str) -> None:
        self._client = client
        self._stream = StreamNames(prefix).deltas
        self._fields: dict[str, str] = {}

    def stream(self, response_id: str | None = None, **context: str | None) -> Xadd:
        """Begin the stream of a response."""
        known = {name: value for name, value in context.items() if value is not None}
        self._fields = {"response_id": str(response_id), **known}
        return self

    def offer(self, events: Sequence[dict[str, Any]]) -> None:
        """Write events."""
        for event in events:
            fields: Any = {"event": json.dumps(event), **self._fields}
            self._client.xadd(self._stream, fields)

    def end(self) -> None:
        """Do nothing: each event was written."""


async def test_a_copied_refusal_becomes_a_text_and_alerts(redis: Redis, redis_url: str, prefix: str) -> None:
    """Publish a Chat Completions stream through `tee`."""
    async with workers_in_process(redis_url, prefix):
        with redis_py.Redis.from_url(redis_url) as client:
            for _ in tee(SAMPLES["chat refusal"].messages, Xadd(client, prefix), tenant="acme"):
                pass
        await wait_until_settled(redis, prefix)
    (text,) = await texts(redis, prefix)
    assert (text.text, text.kind, text.integrity) == ("I'm sorry, I can't.", "refusal", "verified")
    assert (text.tenant, text.model, text.dialect) == ("acme", "gpt-5", "openai.chat")
    assert text.upstream_response_id == "chatcmpl-1"
    assert [alert.type for alert in await alerts(redis, prefix)] == [
        "deltaloom.refusal.opened",
        "deltaloom.refusal.finished",
    ]
    assert await dead_letters(redis, prefix) == []
