"""Settlements of responses that have changed since they were loaded write what is still true, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from handlers import BUILT_IN
from handlers.core.identity import StreamKey
from handlers.core.routing import RoutingTable
from service.keys import Keys
from service.pipeline.settling import GivenUp, settle
from service.ports.storage import SetupError
from service.storage.store import RedisStorage
from tests.bench import COMPLETED, delta, done
from tests.workers import alerts, counts, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.core.identity import PartKey
    from service.ports.storage import Committed, Settlement
    from tests.bench import Bench

TABLE = RoutingTable(BUILT_IN.values())
RESPONSE = StreamKey("response", "resp_1")
CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}
FILTERED = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}


class RecordingStorage(RedisStorage):
    """A storage that records the texts that it has written."""

    written: Sequence[PartKey] = ()

    async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> Sequence[PartKey]:
        """Settle, and record the written texts."""
        self.written = await super().settle(settlements, replication_id)
        return self.written


def second_part(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event as one of a second part of the same item."""
    return {**event, "content_index": 1}


async def committed(bench: Bench, *events: dict[str, Any]) -> Committed:
    """Publish events and commit them, as a worker that stops before it settles."""
    await bench.publish(*events)
    return await bench.commit(await bench.consumer("stopped").read())


async def settled(bench: Bench) -> list[str]:
    """Sweep as another worker, and return the texts that have come out so far."""
    await bench.consumer("sweeper").worker.sweep()
    return sorted(text.text for text in await texts(bench.redis, bench.prefix))


@pytest.mark.parametrize("kind", ["refusal", "reasoning_text"])
async def test_a_text_of_the_final_copy_alone_is_written_once(bench: Bench, kind: str) -> None:
    """Otherwise a text without a log would come out with each settlement that was loaded before."""
    field = "refusal" if kind == "refusal" else "text"
    item = {"type": "message", "id": "item_1", "content": [{"type": kind, field: "no"}]}
    late = await committed(bench, {"type": "response.completed", "response": {"output": [item]}})
    assert [await bench.settle(late) for _ in range(3)] == [1, 0, 0]
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["no"]


async def test_each_text_that_was_written_is_named(bench: Bench) -> None:
    """Otherwise a worker's log would name the wrong finished texts."""
    await bench.publish(delta(1, "x"), done("x"), response_id="resp_0")
    late = await committed(
        bench, delta(1, "a"), done("a"), second_part(delta(2, "b")), second_part(done("b"))
    )
    storage = RecordingStorage(bench.redis, Keys(bench.names), bench.settings)
    await settle(storage, TABLE, late.loaded, late.low_water, late.replication_id)
    assert [(part.stream_key.value, part.content_index) for part in storage.written] == [
        ("resp_0", 0),
        ("resp_1", 0),
        ("resp_1", 1),
    ]


async def test_a_closing_that_came_meanwhile_is_settled_by_the_next_sweep(bench: Bench) -> None:
    """Otherwise the response would count as settled, and the other text be abandoned."""
    late = await committed(bench, delta(1, "a"), done("a"))
    await committed(bench, second_part(delta(2, "b")), second_part(done("b")))
    await bench.settle(late)
    assert await settled(bench) == ["a", "b"]


async def test_an_ending_that_came_meanwhile_is_settled_by_the_next_sweep(bench: Bench) -> None:
    """Otherwise a response that has ended would stay open until the idle timeout."""
    late = await committed(bench, delta(1, "a"), done("a"))
    await committed(bench, COMPLETED)
    await bench.settle(late)
    assert await settled(bench) == ["a"]
    assert await bench.member_scores("open") == {}
    assert await bench.member_scores("waiting") == {}


async def test_a_response_is_not_forgotten_while_an_end_of_it_is_to_be_settled(bench: Bench) -> None:
    """Otherwise an end that came during the settlement would never be settled, and raise no alert."""
    late = await committed(bench, delta(1, "a"), done("a"), COMPLETED)
    await committed(bench, FILTERED)
    await bench.settle(late)
    assert list(await bench.member_scores("open")) == [str(RESPONSE)]
    await settled(bench)
    raised = [alert.type for alert in await alerts(bench.redis, bench.prefix)]
    assert raised == ["deltaloom.response.filtered"]


async def test_a_response_is_not_forgotten_while_a_part_of_it_is_open(bench: Bench) -> None:
    """Otherwise a text that began during the settlement would never be abandoned."""
    late = await committed(bench, delta(1, "a"), done("a"), COMPLETED)
    await committed(bench, second_part(delta(2, "b")))
    await bench.settle(late)
    assert list(await bench.member_scores("open")) == [str(RESPONSE)]


async def test_a_text_that_grew_meanwhile_keeps_what_ends_it(bench: Bench) -> None:
    """Otherwise the end would be deleted before the text is loaded again, and the text be abandoned."""
    late = await committed(bench, delta(1, "a"), COMPLETED)
    await committed(bench, delta(2, "late"))
    assert await bench.settle(late) == 0
    assert await settled(bench) == ["a"]
    (text,) = await texts(bench.redis, bench.prefix)
    assert text.status == "completed"
    assert await counts(bench.redis, bench.prefix) == {"late": 1}


async def test_a_response_is_counted_with_the_text_that_grew_meanwhile(bench: Bench) -> None:
    """Otherwise a refusal that is loaded again would count as an answer."""
    late = await committed(bench, CREATED, done("no", "refusal"), COMPLETED)
    await committed(bench, delta(2, "late", "refusal"))
    assert await bench.settle(late) == 0
    assert await settled(bench) == ["no"]
    bucket, *_ = await bench.redis.keys(bench.names.name("rates:*"))
    counted: Any = await bench.redis.hgetall(bucket)
    assert counted == {b"responses:model:m": b"1", b"refused:model:m": b"1"}


async def test_a_text_that_grew_meanwhile_is_read_again_with_all_that_was_closed_after_it(
    bench: Bench,
) -> None:
    """Otherwise the later text would be finished first, and so count as the earlier one."""
    late = await committed(
        bench, delta(1, "a"), done("a"), second_part(delta(2, "b")), second_part(done("b"))
    )
    await committed(bench, delta(3, "late"))
    assert await bench.settle(late) == 0
    assert await settled(bench) == ["a", "b"]


async def test_whole_text_that_grew_meanwhile_is_no_copy_of_a_later_one(bench: Bench) -> None:
    """Otherwise the later text would be written first, and the earlier one be dropped as its copy."""
    late = await committed(bench, done("a"), second_part(delta(2, "a")), second_part(done("a")))
    await committed(bench, delta(3, "late"))
    assert await bench.settle(late) == 0
    assert await settled(bench) == ["a", "a"]


async def test_copy_is_not_dropped_before_its_text_is_written(bench: Bench) -> None:
    """Otherwise the text would be loaded again without the copy that confirms it."""
    item = {"type": "message", "content": [{"type": "other"}, {"type": "refusal", "refusal": "ab"}]}
    end = {"type": "response.output_item.done", "output_index": 0, "item": item}
    late = await committed(bench, delta(1, "a", "refusal"), end)
    await committed(bench, delta(3, "late", "refusal"))
    assert await bench.settle(late) == 0
    assert await settled(bench) == ["ab"]


async def test_copy_that_grew_meanwhile_counts_as_no_copy_of_a_later_text(bench: Bench) -> None:
    """Otherwise the later text would be finished first, and an alert would report a contradiction."""

    def item(*refusals: str) -> dict[str, Any]:
        content = [{"type": "refusal", "refusal": each} for each in refusals]
        item = {"type": "message", "content": content}
        return {"type": "response.output_item.done", "output_index": 0, "item": item}

    elsewhere = done("b", "refusal") | {"output_index": 1}
    late = await committed(bench, elsewhere, item("b"), delta(3, "", "refusal"), item("a", "a"))
    await committed(bench, delta(5, "", "refusal"))
    assert await bench.settle(late) == 1
    assert await settled(bench) == ["a", "b"]
    assert "deltaloom.text.contradicted" not in [
        alert.type for alert in await alerts(bench.redis, bench.prefix)
    ]


async def test_late_events_of_a_text_are_all_counted(bench: Bench) -> None:
    """Otherwise deltas after the end of their text would not be counted."""
    late = await committed(bench, delta(1, "a"), done("a"), *(delta(n, "late") for n in range(2, 5)))
    await bench.settle(late)
    assert await counts(bench.redis, bench.prefix) == {"late": 3}


@pytest.mark.parametrize("event", [delta(2, "b"), second_part(delta(2, "b"))])
async def test_a_response_is_not_given_up_if_something_came_meanwhile(
    bench: Bench, event: dict[str, Any]
) -> None:
    """Otherwise a text would be abandoned just when it continues."""
    long_ago = await bench.now_ms() - 60_000
    await bench.publish_at(long_ago, delta(1, "a"))
    await bench.consumer().work()
    (loaded,) = await bench.storage.load([RESPONSE])
    survey = await bench.storage.survey(1000)
    await bench.publish(event)
    await bench.consumer("two").work()
    given_up = {RESPONSE: GivenUp(survey.idle[RESPONSE], survey.now_ms, "idle_timeout")}
    await settle(bench.storage, TABLE, [loaded], survey.low_water, survey.replication_id, given_up)
    assert await texts(bench.redis, bench.prefix) == []
    await bench.publish(done("ab" if event == delta(2, "b") else "a"))
    await bench.consumer("two").work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.status, text.integrity) == ("completed", "verified")


async def test_only_the_silent_one_of_two_is_given_up(bench: Bench) -> None:
    """Otherwise one text that continues would keep others from being abandoned, or be abandoned with them."""
    keys = [StreamKey("response", name) for name in ("resp_1", "resp_2")]
    long_ago = await bench.now_ms() - 60_000
    for key in keys:
        await bench.publish_at(long_ago, delta(1, key.value), response_id=key.value)
    await bench.consumer().work()
    loaded = await bench.storage.load(keys)
    survey = await bench.storage.survey(1000)
    await bench.publish(delta(2, "b"))
    await bench.consumer("two").work()
    given_up = {key: GivenUp(survey.idle[key], survey.now_ms, "idle_timeout") for key in keys}
    await settle(bench.storage, TABLE, loaded, survey.low_water, survey.replication_id, given_up)
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["resp_2"]


async def test_a_response_in_doubt_stays_to_be_settled(bench: Bench) -> None:
    """Otherwise a text that waits for a slow worker would wait for the idle timeout."""
    await bench.publish(delta(1, "a"))
    held = await bench.consumer("slow").read()
    late = await committed(bench, delta(2, "b"), done("ab"), COMPLETED)
    assert await bench.settle(late) == 0
    assert await settled(bench) == []
    await bench.commit(held)
    assert await settled(bench) == ["ab"]


async def test_what_was_loaded_before_a_failover_is_not_written(bench: Bench) -> None:
    """Otherwise a text would come out that a failover has reopened, and come out again later."""
    late = await committed(bench, delta(1, "a"), done("a"))
    assert await settle(bench.storage, TABLE, late.loaded, late.low_water, "0" * 40) == 0
    assert await texts(bench.redis, bench.prefix) == []
    assert await bench.settle(late) == 1


async def test_a_settlement_of_a_written_text_reports_a_contradiction(bench: Bench) -> None:
    """Otherwise a contradiction would be lost, because its end is marked as settled."""
    item = {"type": "message", "id": "item_1", "content": [{"type": "refusal", "refusal": "never"}]}
    first = await committed(bench, delta(1, "no", "refusal"), done("no", "refusal"))
    second = await committed(bench, {"type": "response.completed", "response": {"output": [item]}})
    loaded = await bench.storage.load(second.ready)
    assert await bench.settle(first) == 1
    assert await settle(bench.storage, TABLE, loaded, second.low_water, second.replication_id) == 0
    await settled(bench)
    raised = [alert for alert in await alerts(bench.redis, bench.prefix) if alert.severity == "info"]
    assert [(alert.type, alert.text) for alert in raised] == [("deltaloom.text.contradicted", "never")]
    assert (await counts(bench.redis, bench.prefix))["contradicted"] == 1


ANOTHER = {"type": "message", "id": "item_1", "content": [{"type": "refusal", "refusal": "never"}]}
COPIED = {"type": "response.completed", "response": {"output": [ANOTHER]}}


async def test_a_final_copy_waits_for_texts_that_came_before_it(bench: Bench) -> None:
    """Otherwise the alert about a contradiction would depend on which worker was faster."""
    await committed(bench, delta(1, "no", "refusal"), done("no", "refusal"))
    await bench.publish(second_part(delta(2, "nor", "refusal")))
    held = await bench.consumer("slow").read()
    late = await committed(bench, COPIED)
    loaded = await bench.storage.load([RESPONSE])
    assert await settle(bench.storage, TABLE, loaded, late.low_water, late.replication_id) == 1
    await bench.commit(held)
    assert await settled(bench) == ["no", "nor"]
    assert [a.type for a in await alerts(bench.redis, bench.prefix) if a.severity == "info"] == []


async def test_a_text_that_began_after_the_final_copy_hides_no_contradiction(bench: Bench) -> None:
    """Otherwise the alert about a contradiction would depend on when a worker settles."""
    await committed(bench, delta(1, "no", "refusal"), done("no", "refusal"), COPIED)
    late = await committed(bench, second_part(delta(2, "nor", "refusal")))
    loaded = await bench.storage.load([RESPONSE])
    assert await settle(bench.storage, TABLE, loaded, late.low_water, late.replication_id) == 1
    raised = [alert for alert in await alerts(bench.redis, bench.prefix) if alert.severity == "info"]
    assert [(alert.type, alert.text) for alert in raised] == [("deltaloom.text.contradicted", "never")]


async def test_a_response_that_is_named_twice_in_a_call_is_written_once(bench: Bench) -> None:
    """Otherwise a text would come out twice if a worker settles its response twice at once."""
    late = await committed(bench, delta(1, "a"), done("a"), COMPLETED)
    twice = [*late.loaded, *late.loaded]
    assert await settle(bench.storage, TABLE, twice, late.low_water, late.replication_id) == 1
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]


@pytest.mark.parametrize("name", ["assembled", "alerts", "open", "waiting"])
async def test_a_settlement_that_meets_a_key_of_another_type_writes_nothing(bench: Bench, name: str) -> None:
    """Otherwise its first writes would be repeated once the key is as it should be."""
    await bench.publish(delta(1, "No", "refusal"), done("No", "refusal"), COMPLETED)
    committed = await bench.commit(await bench.consumer().read())
    key, aside = bench.names.name(name), bench.names.name("aside")
    if was_there := await bench.redis.exists(key):
        await bench.redis.rename(key, aside)
    await bench.redis.rpush(key, "of another program")
    before = await dump(bench)
    with pytest.raises(SetupError, match=key):
        await bench.settle(committed)
    assert await dump(bench) == before
    await bench.redis.delete(key)
    if was_there:
        await bench.redis.rename(aside, key)
    assert await bench.settle(committed) == 1


async def dump(bench: Bench) -> dict[bytes, bytes | None]:
    """Return all keys with their values, as the server stores them."""
    return {key: await bench.redis.dump(key) async for key in bench.redis.scan_iter(f"{bench.prefix}:*")}
