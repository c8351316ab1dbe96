"""A response that begins and ends in one batch: the reply has what was written, which is not read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from handlers.core.identity import PartKey
from service.keys import Keys
from service.storage import replies
from service.storage.store import RedisStorage
from tests.bench import COMPLETED, Bench, delta, done
from tests.workers import alerts, texts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from handlers.core.identity import StreamKey
    from service.ports.commit import Commit
    from service.ports.storage import Committed, LoadedResponse

CREATED = {"type": "response.created", "response": {"model": "m"}}
FILTERED = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}

Stored = tuple[dict[str, bytes], dict[str, bytes]]
"""The fields of a state, and its open logs by part."""

loaded_from = replies.loaded_from


class Comparing(RedisStorage):
    """A storage that also reads the responses that a commit has loaded, before they are settled."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self._redis, self._names = bench.redis, Keys(bench.names)
        super().__init__(self._redis, self._names, bench.settings)
        self.replied: dict[StreamKey, Stored] = {}
        self.stored: dict[StreamKey, Stored] = {}
        monkeypatch.setattr(replies, "loaded_from", self._decode)

    def _decode(self, key: StreamKey, state: dict[str, bytes], logs: dict[str, bytes]) -> LoadedResponse:
        self.replied[key] = state, logs
        return loaded_from(key, state, logs)

    async def commit(self, commit: Commit, replication_id: str = "", *, whole: bool = False) -> Committed:
        """Commit, and read the loaded responses."""
        committed = await super().commit(commit, replication_id, whole=whole)
        for response in committed.loaded:
            key = response.state.stream_key
            fields: Any = await self._redis.hgetall(self._names.state(key))
            logs = {field: await self._log(PartKey.from_field(key, field)) for field in self.replied[key][1]}
            self.stored[key] = {name.decode(): value for name, value in fields.items()}, logs
        return committed

    async def _log(self, part: PartKey) -> Any:
        return await self._redis.get(self._names.log(part))


@pytest.mark.parametrize("kind", ["refusal", "reasoning_text"])
async def test_the_reply_is_what_was_stored(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Otherwise a text would be finished without a part of it, or its alert be raised again."""
    bench = Bench(redis, prefix, max_response_parts=2)
    storage = Comparing(bench, monkeypatch)
    consumer = bench.consumer(storage=storage)
    first, closing = delta(1, "No", kind), done("No", kind)
    await bench.publish(CREATED, first, closing, COMPLETED, response_id="r1", tenant="t")
    await bench.publish(first, {**delta(2, "x", kind), "output_index": 1}, response_id="r2")
    await bench.publish(closing, FILTERED, response_id="r2")
    await bench.publish(CREATED, first, response_id="r3")
    await consumer.work()
    await bench.publish(delta(2, "!", kind), COMPLETED, response_id="r3")
    too_many = [{**first, "output_index": index} for index in range(3)]
    await bench.publish(*too_many, COMPLETED, response_id="r4")
    await consumer.work()
    assert sorted(key.value for key in storage.replied) == ["r1", "r2", "r3", "r4"]
    assert storage.replied == storage.stored
    assert len(await texts(bench.redis, bench.prefix)) == 6
    ids = [alert.id for alert in await alerts(bench.redis, bench.prefix)]
    assert len(ids) == len(set(ids))
