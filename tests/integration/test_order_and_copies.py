"""Tests of copies and of the order of events: a text comes out once, wherever its copies are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from handlers import BUILT_IN
from tests.bench import Bench, Consumer
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom import AssembledText

Json = dict[str, Any]

COMPLETED: Json = {"type": "response.completed", "response": {"output": []}}


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench on a prefix of its own."""
    return Bench(redis, prefix)


def delta(text: str, content_index: int = 1, **odd: Any) -> Json:
    """Return a delta of a refusal."""
    place = {"output_index": 0, "content_index": content_index}
    return {"type": "response.refusal.delta", "delta": text, **place, **odd}


def done(text: str, content_index: int = 1, **odd: Any) -> Json:
    """Return the closing event of a refusal, with its whole text."""
    place = {"output_index": 0, "content_index": content_index}
    return {"type": "response.refusal.done", "refusal": text, **place, **odd}


def part_done(text: str, content_index: int = 0) -> Json:
    """Return a `response.content_part.done` event with a copy of the refusal."""
    part = {"type": "refusal", "refusal": text}
    place = {"output_index": 0, "content_index": content_index}
    return {"type": "response.content_part.done", "part": part, **place}


def item(*refusals: str) -> Json:
    """Return an item with these refusals."""
    return {"type": "message", "content": [{"type": "refusal", "refusal": text} for text in refusals]}


def item_done(*refusals: str, output_index: int = 0) -> Json:
    """Return the closing event of an item with these refusals."""
    return {"type": "response.output_item.done", "output_index": output_index, "item": item(*refusals)}


def completed(*items: Json) -> Json:
    """Return the end event of a response with these items."""
    return {"type": "response.completed", "response": {"output": [*items]}}


async def publish(bench: Bench, events: list[Json], cut: str) -> None:
    """Publish the events one by one, in pairs, or all in one array."""
    size = {"one by one": 1, "in pairs": 2, "in one array": len(events)}[cut]
    for first in range(0, len(events), size):
        await bench.publish(json.dumps(events[first : first + size]))


async def work(consumer: Consumer) -> None:
    """Process all entries one by one, and sweep once."""
    await consumer.work()
    await consumer.worker.sweep()


async def came_out(bench: Bench) -> list[tuple[str, str, str]]:
    """Return the text, status and integrity of what came out."""
    found: list[AssembledText] = await texts(bench.redis, bench.prefix)
    assert await dead_letters(bench.redis, bench.prefix) == []
    return [(text.text, text.status, text.integrity) for text in found]


async def alert_types(bench: Bench) -> list[str]:
    """Return the types of the alerts."""
    return [alert.type.removeprefix("deltaloom.") for alert in await alerts(bench.redis, bench.prefix)]


CUTS = ["one by one", "in pairs", "in one array"]
ONCE: dict[str, list[Json]] = {
    "done, then item": [done("No."), item_done("No.")],
    "deltas, then item": [delta("No"), delta("."), item_done("No.")],
    "deltas and done, then item": [delta("No."), done("No."), item_done("No.")],
    "item, then done": [item_done("No."), done("No.")],
    "part, then done": [part_done("No."), done("No.")],
    "done, then part, then item": [done("No."), part_done("No."), item_done("No.")],
    "deltas, then part, then item": [delta("No."), part_done("No."), item_done("No.")],
    "done, then another item": [done("No."), item_done("No.", output_index=1)],
    "done, then the end": [done("No."), completed(item("No."))],
    "item, then the end": [item_done("", "No."), completed(item("No."))],
    "all": [delta("No."), done("No."), part_done("No.", 2), item_done("No."), completed(item("No."))],
    "item twice": [done("No."), item_done("No."), item_done("No.")],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("case", ONCE)
async def test_refusal_comes_once_wherever_its_copies_stand(bench: Bench, case: str, cut: str) -> None:
    """Otherwise one refusal would become two texts with four alerts (seen with vLLM and Doubao)."""
    await publish(bench, [*ONCE[case], COMPLETED], cut)
    await work(bench.consumer())
    assert [text for text, *_ in await came_out(bench)] == ["No."]
    assert await alert_types(bench) == ["refusal.opened", "refusal.finished"]


@pytest.mark.parametrize("case", ONCE)
async def test_refusal_comes_once_whoever_is_faster(bench: Bench, case: str) -> None:
    """Otherwise a copy would become a second text if its worker is faster than the text's worker."""
    await bench.publish(*ONCE[case], COMPLETED)
    one, two = bench.consumer("one"), bench.consumer("two")
    first, rest = await one.read(1), await two.read()
    await two.process(rest)
    await two.worker.sweep()
    assert [text for text, *_ in await came_out(bench)] in ([], ["No."])
    await one.process(first)
    await one.worker.sweep()
    assert [text for text, *_ in await came_out(bench)] == ["No."]
    assert sorted(await alert_types(bench)) == ["refusal.finished", "refusal.opened"]


@pytest.mark.parametrize("cut", CUTS)
async def test_two_refusals_with_the_same_words_both_come(bench: Bench, cut: str) -> None:
    """Otherwise the second refusal would be lost together with its alerts."""
    two = [delta("No.", 1), done("No.", 1), delta("No.", 2), done("No.", 2)]
    await publish(bench, [*two, item_done("No.", "No."), COMPLETED], cut)
    await work(bench.consumer())
    assert await came_out(bench) == [("No.", "completed", "verified")] * 2
    assert sorted(await alert_types(bench)) == ["refusal.finished"] * 2 + ["refusal.opened"] * 2


@pytest.mark.parametrize("cut", CUTS)
async def test_refusal_that_came_whole_raises_both_alerts(bench: Bench, cut: str) -> None:
    """Otherwise refusals of a server without deltas would raise no alert."""
    await publish(bench, [item_done("No.", "Never.")], cut)
    await work(bench.consumer())
    assert await alert_types(bench) == ["refusal.opened", "refusal.finished"] * 2


async def test_a_copy_leaves_nothing_behind(bench: Bench) -> None:
    """Otherwise each such response would stay open until the idle timeout."""
    await bench.publish(done("No."), item_done("No."), COMPLETED, delta("x", 0))
    await work(bench.consumer())
    names = bench.names
    assert await bench.redis.exists(names.name("open"), names.name("waiting")) == 0
    assert [key async for key in bench.redis.scan_iter(match=names.name("log:*"))] == []
    assert (await counts(bench.redis, bench.prefix))["late"] == 1
    assert len(await alert_types(bench)) == 2


async def test_delta_that_follows_a_copy_raises_no_alert_of_its_own(bench: Bench) -> None:
    """Otherwise an alert `opened` would never be followed by `finished`."""
    await bench.publish(done("No."), item_done("No."), delta("x", 0), delta("y", 0))
    await bench.consumer("holds").read(1)
    two = bench.consumer("two")
    await two.process(await two.read(1))
    await two.process(await two.read(1))
    await two.process(await two.read())
    assert "refusal.opened" not in await alert_types(bench)


# ------------------------------------------------------------------------ order in an array


@pytest.mark.parametrize("first", [item_done(), {"type": "response.incomplete"}, item_done("")])
async def test_end_that_stands_before_the_first_delta_does_not_close_it(bench: Bench, first: Json) -> None:
    """Otherwise a text would be cut off after its first word."""
    await bench.publish(json.dumps([first, delta("one")]))
    await bench.publish(done("one two"))
    await work(bench.consumer())
    assert await came_out(bench) == [("one two", "completed", "repaired")]


async def test_text_of_the_first_event_counts_also_within_an_array(bench: Bench) -> None:
    """Otherwise the same events would give a different text if they are cut into other entries."""
    events = [delta("I", 0), part_done("I can", 0), done("I can not", 0)]
    await bench.publish(json.dumps(events))
    await bench.publish(*events, response_id="resp_2")
    await work(bench.consumer())
    assert await came_out(bench) == [("I can", "completed", "repaired")] * 2
    assert (await alert_types(bench)).count("text.contradicted") == 2


@pytest.mark.parametrize("cut", CUTS)
async def test_early_done_is_contradicted_by_the_fuller_copy(bench: Bench, cut: str) -> None:
    """Otherwise nobody would learn that the text which came out is not complete."""
    events = [delta("I ", 0), done("I ", 0), delta("cannot ", 0), delta("help.", 0)]
    await publish(bench, [*events, completed(item("I cannot help."))], cut)
    await work(bench.consumer())
    assert await came_out(bench) == [("I ", "completed", "verified")]
    (other,) = [a for a in await alerts(bench.redis, bench.prefix) if a.type == "deltaloom.text.contradicted"]
    assert other.text == "I cannot help."
    assert (await counts(bench.redis, bench.prefix))["late"] == 2


# ------------------------------------------------------------ text in a single event only

PLACE: Json = {"output_index": 0, "content_index": 0}
SUMMARY: Json = {"output_index": 0, "summary_index": 0}
REFUSAL: Json = {"type": "refusal", "refusal": "No."}
ONLY: dict[str, tuple[Json, str]] = {
    "item added": (
        {"type": "response.output_item.added", "output_index": 0, "item": item("No.")},
        "unverified",
    ),
    "part added": ({"type": "response.content_part.added", "part": REFUSAL, **PLACE}, "unverified"),
    "reasoning part added": (
        {
            "type": "response.reasoning_part.added",
            "part": {"type": "reasoning_text", "text": "No."},
            **PLACE,
        },
        "unverified",
    ),
    "summary part added": (
        {
            "type": "response.reasoning_summary_part.added",
            "part": {"type": "summary_text", "text": "No."},
            **SUMMARY,
        },
        "unverified",
    ),
    "reasoning part done": (
        {
            "type": "response.reasoning_part.done",
            "part": {"type": "reasoning_text", "text": "No."},
            **PLACE,
        },
        "repaired",
    ),
    "summary part done": (
        {
            "type": "response.reasoning_summary_part.done",
            "part": {"type": "summary_text", "text": "No."},
            **SUMMARY,
        },
        "repaired",
    ),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("case", ONLY)
async def test_text_that_one_event_alone_has_comes_out(bench: Bench, case: str, cut: str) -> None:
    """Otherwise a text that only one kind of event contains would be lost."""
    event, integrity = ONLY[case]
    await publish(bench, [event, item_done(), COMPLETED], cut)
    await work(bench.consumer())
    assert await came_out(bench) == [("No.", "completed", integrity)]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("case", ["item added", "part added"])
async def test_text_that_deltas_repeat_comes_once(bench: Bench, case: str, cut: str) -> None:
    """Otherwise the text would come out twice, or begin twice."""
    await publish(bench, [ONLY[case][0], delta("No.", 0), delta(" Never.", 0), COMPLETED], cut)
    await work(bench.consumer())
    assert await came_out(bench) == [("No. Never.", "completed", "unverified")]
    assert await alert_types(bench) == ["refusal.opened", "refusal.finished"]


async def test_beginning_without_a_text_is_only_counted(bench: Bench) -> None:
    """Otherwise events that all servers send would fill the state or become dead letters."""
    for event_type in ("output_item", "content_part", "reasoning_part", "reasoning_summary_part"):
        await bench.publish({"type": f"response.{event_type}.added"})
    await work(bench.consumer())
    assert await came_out(bench) == []
    assert len(await counts(bench.redis, bench.prefix)) == 4
    assert [key async for key in bench.redis.scan_iter(match=bench.names.name("state:*"))] == []


async def test_index_that_grows_with_every_delta_makes_a_text_of_each(bench: Bench) -> None:
    """Known limit: if a server increases the index with each delta, each delta becomes a text of its own."""
    kind = {"output_index": 0, "item_id": "msg_1"}
    events = [
        *(
            {"type": "response.output_text.delta", "content_index": n, "delta": delta, **kind}
            for n, delta in enumerate(("Well", ", ", "no."))
        ),
        {"type": "response.output_text.done", "content_index": 3, "text": "Well, no.", **kind},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"type": "message", "content": [{"type": "output_text", "text": "Well, no."}]},
        },
    ]
    await bench.publish(*events)
    await work(bench.consumer(handlers=list(BUILT_IN.values())))
    found = await texts(bench.redis, bench.prefix)
    assert [(text.content_index, text.text, text.integrity) for text in found] == [
        (3, "Well, no.", "repaired"),
        (0, "Well, no.", "repaired"),
        (1, ", ", "unverified"),
        (2, "no.", "unverified"),
    ]


# ---------------------------------------------------- an item id equal to a response's id


@pytest.mark.parametrize("item_first", [True, False])
async def test_item_with_the_id_of_a_response_costs_no_text(bench: Bench, *, item_first: bool) -> None:
    """Otherwise one of the two texts would be lost, or the item to look up would change."""
    event: Any = {"event": json.dumps(done("by item", 0, item_id="resp_1"))}
    consumer = bench.consumer()
    if not item_first:
        await bench.publish(done("by response", 0), COMPLETED)
        await work(consumer)
    await bench.redis.xadd(bench.names.deltas, event)
    await work(consumer)
    if item_first:
        await bench.publish(done("by response", 0), COMPLETED)
        await work(consumer)
    first, second = ("by item", "by response") if item_first else ("by response", "by item")
    assert [text for text, *_ in await came_out(bench)] == [first, second]
    assert await alert_types(bench) == ["refusal.opened", "refusal.finished"] * 2
    shown: Any = await bench.redis.hgetall(bench.names.item("resp_1", 0))
    assert [json.loads(text)["text"] for text in shown.values()] == [first]
