"""Odd fields, as real servers send them, cost nothing but themselves: on a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from service.keys import LEFT_OUT
from tests.bench import Bench
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from redis.asyncio import Redis

Json = dict[str, Any]

DELTA: Json = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0}
DONE: Json = {"type": "response.refusal.done", "output_index": 0, "content_index": 0, "refusal": "I cannot"}


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """One partition of the test's own."""
    return Bench(redis, prefix)


def deltas(**odd: Any) -> list[Json]:
    """A refusal in two deltas, each with these fields."""
    return [{**DELTA, "delta": delta, **odd} for delta in ("I can", "not")]


def completed(**response: Any) -> Json:
    """The end of a response that says this."""
    return {"type": "response.completed", "response": response}


def message(*content: Any, **odd: Any) -> Json:
    """An output item with this content."""
    return {"type": "message", "id": "msg_1", "content": [*content], **odd}


REFUSAL: Json = {"type": "refusal", "refusal": "I cannot"}

ODD: dict[str, tuple[list[Json], list[str]]] = {
    "empty item_id": ([*deltas(item_id=""), DONE | {"item_id": ""}], ["delta:item_id", "done:item_id"]),
    "null item_id": ([*deltas(item_id=None), DONE], []),
    "half a pair": ([*deltas(item_id="a\ud83d"), DONE], ["delta:item_id"]),
    "numbers as strings": ([*deltas(output_index="0", content_index="0"), DONE], []),
    "numbers as floats": ([*deltas(output_index=0.0), DONE | {"content_index": 0.0}], []),
    "null index": ([*deltas(content_index=None), DONE], ["delta:content_index"]),
    "huge number": ([*deltas(sequence_number=2**63), DONE], ["delta:sequence_number"]),
    "text of another type": ([*deltas(), DONE | {"refusal": 7}], ["done:refusal"]),
    "null text": ([*deltas(), DONE | {"refusal": None}], []),
    "odd checksum": ([*deltas(), DONE | {"text_sha256": 7}], ["done:text_sha256"]),
    "empty id in a copy": ([*deltas(), completed(output=[message(REFUSAL, id="")])], ["output.id"]),
    "null text in a copy": (
        [*deltas(), completed(output=[message({"type": "output_text", "text": None}, REFUSAL)])],
        [],
    ),
    "null in a copy": (
        [{**delta, "content_index": 1} for delta in deltas()] + [completed(output=[message(None, REFUSAL)])],
        ["output.content"],
    ),
    "null item": (
        [{**delta, "output_index": 1} for delta in deltas()] + [completed(output=[None, message(REFUSAL)])],
        ["output"],
    ),
    "content as a string": (
        [*deltas(), completed(output=[message() | {"content": "x"}])],
        ["output.content"],
    ),
    "output as an object": ([*deltas(), completed(output={})], ["output"]),
    "summary as an object": (
        [*deltas(), completed(output=[{"type": "reasoning", "summary": {}}])],
        ["output.summary"],
    ),
    "model as a number": ([*deltas(), completed(model=5)], ["model"]),
    "null response": ([*deltas(), {"type": "response.completed", "response": None}], []),
}


@pytest.mark.parametrize("array", [False, True], ids=["entries", "array"])
@pytest.mark.parametrize("case", ODD)
async def test_odd_field_costs_nothing_else(bench: Bench, case: str, *, array: bool) -> None:
    """Otherwise one odd field would cost a refusal, its alerts, or the end of its response."""
    events, left_out = ODD[case]
    await (bench.publish(json.dumps(events)) if array else bench.publish(*events))
    await bench.consumer().work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.status) == ("I cannot", "completed")
    assert [alert.type for alert in await alerts(bench.redis, bench.prefix)] == [
        "deltaloom.refusal.opened",
        "deltaloom.refusal.finished",
    ]
    assert await dead_letters(bench.redis, bench.prefix) == []
    counted = [name for name in await counts(bench.redis, bench.prefix) if name.startswith(LEFT_OUT)]
    ends = [name.replace("refusal.", "").replace("completed:response.", "") for name in counted]
    assert sorted(end.removeprefix(f"{LEFT_OUT}response.") for end in ends) == sorted(left_out)


async def test_event_that_is_nested_too_deeply_costs_only_itself(bench: Bench) -> None:
    """Otherwise it would take the refusal in the same array with it."""
    deep = '{"type": "x", "a": ' + "[" * 1000 + "]" * 1000 + "}"
    await bench.publish(json.dumps([*deltas(), DONE]).replace("[", f"[{deep},", 1))
    await bench.consumer().work()
    (text,) = await texts(bench.redis, bench.prefix)
    (letter,) = await dead_letters(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("I cannot", "verified")
    assert letter.reason == "malformed_json"
    assert json.loads(letter.entry)["event"] == deep


async def test_what_was_left_out_is_counted_for_each_event(bench: Bench) -> None:
    """Otherwise nobody would see how often a server sends what cannot be used."""
    await bench.publish(*deltas(item_id=""))
    await bench.publish(json.dumps(deltas(item_id="", sequence_number="x")))
    await bench.consumer().work()
    counted = await counts(bench.redis, bench.prefix)
    name = f"{LEFT_OUT}response.refusal.delta"
    assert counted == {f"{name}:item_id": 4, f"{name}:sequence_number": 2}
