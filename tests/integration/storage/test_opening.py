"""The alert `opened` of a refusal: raised once, with the known context of its response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.keys import Keys
from service.storage.store import RedisStorage
from tests.bench import delta, done
from tests.workers import alerts, texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from handlers.core.identity import PartKey
    from service.ports.commit import Commit
    from service.ports.storage import Committed
    from tests.bench import Bench


class OvertakenStorage(RedisStorage):
    """The storage of a worker that others overtake between its look-up and its commit."""

    def __init__(self, bench: Bench, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__(bench.redis, Keys(bench.names), bench.settings)
        self._meanwhile = meanwhile

    async def commit(self, commit: Commit, replication_id: str = "", *, whole: bool = False) -> Committed:
        """Let the others work, then commit."""
        await self._meanwhile()
        return await super().commit(commit, replication_id, whole=whole)


async def test_workers_that_begin_a_refusal_together_open_it_once(bench: Bench) -> None:
    """Otherwise both workers would see that no alert exists, and both would raise it."""
    await bench.publish(delta(1, "a", "refusal"), delta(2, "b", "refusal"))
    first, second = await bench.consumer("one").read(1), await bench.consumer("two").read(1)
    overtaken = OvertakenStorage(bench, lambda: bench.consumer("one").process(first))
    await bench.consumer("two", storage=overtaken).process(second)
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert alert.text == "a"


async def test_the_earliest_context_counts_though_a_later_one_is_stored(bench: Bench) -> None:
    """Otherwise an alert would name the tenant of a later entry that another worker was quicker to store."""
    await bench.publish(delta(1, "a", "refusal"), tenant="early")
    await bench.publish(delta(1, "b"), tenant="late")
    first, second = await bench.consumer("one").read(1), await bench.consumer("two").read(1)
    await bench.consumer("two").process(second)
    await bench.consumer("one").process(first)
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert alert.tenant == "early"


async def test_a_refusal_that_settles_while_another_worker_opens_it_is_opened_once(bench: Bench) -> None:
    """Otherwise a text that came whole would raise `opened` again."""
    await bench.publish(done("ab", "refusal"))
    committed = await bench.commit(await bench.consumer("one").read())
    for _ in range(2):
        await bench.settle(committed)
    raised = [alert.type for alert in await alerts(bench.redis, bench.prefix)]
    assert raised == ["deltaloom.refusal.opened", "deltaloom.refusal.finished"]


async def test_two_refusals_of_one_response_are_opened_apart(bench: Bench) -> None:
    """Otherwise the alert of the first refusal would be taken for that of the second."""
    second = {"output_index": 1, "item_id": "item_2"}
    await bench.publish(delta(1, "a", "refusal"), {**delta(2, "b", "refusal"), **second})
    await bench.consumer().work()
    assert [(alert.text, alert.output_index) for alert in await alerts(bench.redis, bench.prefix)] == [
        ("a", 0),
        ("b", 1),
    ]


async def test_a_commit_reports_the_parts_that_it_opened(bench: Bench) -> None:
    """Otherwise a worker's log would name the wrong refusal."""
    whole = {"content_index": 1}
    await bench.publish(delta(1, "a"), response_id="resp_0")
    await bench.publish(delta(1, "b", "refusal"), {**delta(2, "c", "refusal"), **whole})
    storage = RecordingStorage(bench)
    consumer = bench.consumer(storage=storage)
    entries = await consumer.read()
    await bench.consumer("other").process(entries[1:2])
    await consumer.process(entries)
    assert [(part.stream_key.value, part.content_index) for part in storage.opened] == [("resp_1", 1)]


class RecordingStorage(RedisStorage):
    """A storage that records the parts that its commits opened."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.redis, Keys(bench.names), bench.settings)
        self.opened: list[PartKey] = []

    async def commit(self, commit: Commit, replication_id: str = "", *, whole: bool = False) -> Committed:
        """Commit, and record the opened parts."""
        committed = await super().commit(commit, replication_id, whole=whole)
        self.opened += committed.opened_parts
        return committed


async def test_the_opening_is_raised_though_a_final_copy_has_no_deltas(bench: Bench) -> None:
    """Otherwise a refusal without deltas would raise `finished` without `opened`."""
    item = {"type": "message", "id": "item_1", "content": [{"type": "refusal", "refusal": "no"}]}
    await bench.publish({"type": "response.completed", "response": {"output": [item]}})
    await bench.consumer().work()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["no"]
    raised = [(alert.type, alert.text) for alert in await alerts(bench.redis, bench.prefix)]
    assert raised == [("deltaloom.refusal.opened", "no"), ("deltaloom.refusal.finished", "no")]
