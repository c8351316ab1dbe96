"""Odd fields, as real servers send them, are left out without further harm: tests on a real server."""

from __future__ import annotations

import json
import sys
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
    """Return a test bench on a prefix of its own."""
    return Bench(redis, prefix)


def deltas(**odd: Any) -> list[Json]:
    """Return a refusal in two deltas, each with these extra fields."""
    return [{**DELTA, "delta": delta, **odd} for delta in ("I can", "not")]


def completed(**response: Any) -> Json:
    """Return the end event of a response with these fields."""
    return {"type": "response.completed", "response": response}


def message(*content: Any, **odd: Any) -> Json:
    """Return an output item with this content."""
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
    """Otherwise the refusal in the same array would be lost with it."""
    deep = '{"type": "x", "a": ' + "[" * 40_000 + "]" * 40_000 + "}"
    await bench.publish(json.dumps([*deltas(), DONE]).replace("[", f"[{deep},", 1))
    await bench.consumer().work()
    (text,) = await texts(bench.redis, bench.prefix)
    letters = await dead_letters(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("I cannot", "verified")
    if sys.version_info >= (3, 14):  # parses this depth
        assert letters == []
        assert (await counts(bench.redis, bench.prefix))["type:x"] == 1
    else:
        assert [letter.reason for letter in letters] == ["malformed_json"]
        assert json.loads(letters[0].entry)["event"] == deep


async def test_what_was_left_out_is_counted_for_each_event(bench: Bench) -> None:
    """Otherwise an operator would not see how often a server sends fields that cannot be used."""
    await bench.publish(*deltas(item_id=""))
    await bench.publish(json.dumps(deltas(item_id="", sequence_number="x")))
    await bench.consumer().work()
    counted = await counts(bench.redis, bench.prefix)
    name = f"{LEFT_OUT}response.refusal.delta"
    assert counted == {f"{name}:item_id": 4, f"{name}:sequence_number": 2}


# ------------------------------------------------------------------------ spellings of an end

FILTERED = {"incomplete_details": {"reason": "content_filter"}}
ENDS: dict[str, tuple[Json, str, str | None, str | None]] = {
    "completed, incomplete": (
        completed(status="incomplete", **FILTERED),
        "incomplete",
        "content_filter",
        "filtered",
    ),
    "completed, failed": (
        completed(status="failed", error={"code": "cyber_policy"}),
        "failed",
        "cyber_policy",
        "blocked",
    ),
    "completed, cancelled": (completed(status="cancelled"), "cancelled", "cancelled", None),
    "done": ({"type": "response.done", "response": {"status": "completed"}}, "completed", None, None),
    "done, failed": ({"type": "response.done", "response": {"status": "failed"}}, "failed", None, None),
    "cancelled": ({"type": "response.cancelled"}, "cancelled", "cancelled", None),
    "response.error": (
        {"type": "response.error", "error": {"code": "content_filter"}},
        "failed",
        "content_filter",
        "blocked",
    ),
    "error without a type": ({"error": {"code": "content_filter"}}, "failed", "content_filter", "blocked"),
    "error as a string": ({"error": "Stream error: connection reset"}, "failed", None, None),
    "failed without a response": ({"type": "response.failed"}, "failed", None, None),
    "failed, error beside it": (
        {"type": "response.failed", "error": {"code": "content_filter"}},
        "failed",
        "content_filter",
        "blocked",
    ),
    "Azure": (
        {"error": {"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        "failed",
        "ResponsibleAIPolicyViolation",
        "blocked",
    ),
}


@pytest.mark.parametrize("case", ENDS)
async def test_every_spelling_of_an_end_ends_at_once(bench: Bench, case: str) -> None:
    """Otherwise a text would wait for the idle timeout, and its status would be wrong."""
    end, status, reason, _ = ENDS[case]
    await bench.publish(*deltas(), end)
    await bench.consumer().work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.status, text.reason) == ("I cannot", status, reason)
    assert await dead_letters(bench.redis, bench.prefix) == []


@pytest.mark.parametrize("case", ENDS)
async def test_every_spelling_of_a_stop_raises_its_alert(bench: Bench, case: str) -> None:
    """Otherwise a filter or a policy could stop a response without an alert."""
    end, status, reason, alert = ENDS[case]
    await bench.publish(end)
    await bench.consumer().work()
    found = [(each.type, each.status, each.reason) for each in await alerts(bench.redis, bench.prefix)]
    assert found == ([] if alert is None else [(f"deltaloom.response.{alert}", status, reason)])


@pytest.mark.parametrize("event_type", ["response.incomplete", "response.failed"])
async def test_copies_of_a_response_that_did_not_complete_count(bench: Bench, event_type: str) -> None:
    """Otherwise a refusal would be lost if only the final copy has it, or has it in full."""
    end = {"type": event_type, "response": {"output": [message(REFUSAL)]}}
    await bench.publish(deltas()[0], end)
    await bench.publish(end, response_id="resp_2")
    await bench.consumer().work()
    found = await texts(bench.redis, bench.prefix)
    assert [(text.text, text.status, text.integrity) for text in found] == [
        ("I cannot", event_type.removeprefix("response."), "repaired")
    ] * 2
    assert len(await alerts(bench.redis, bench.prefix)) == 4


@pytest.mark.parametrize("event_type", ["response.queued", "response.in_progress", "response.completed"])
async def test_model_is_learned_from_any_response(bench: Bench, event_type: str) -> None:
    """Otherwise a refusal without `response.created` would be counted for no model."""
    await bench.publish({"type": event_type, "response": {"model": "m-1"}}, *deltas(), completed(model="m-2"))
    await bench.publish(*deltas(), completed(model="m-1"), response_id="resp_2")
    await bench.consumer().work()
    assert {text.model for text in await texts(bench.redis, bench.prefix)} == {"m-1"}
