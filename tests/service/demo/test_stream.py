"""The streams that the project ships, and what is expected of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, get_args

import pytest

from deltaloom import events
from service.demo.plan import PROGRAMME, Outcome, Plan
from service.demo.stream import Stream, joined_halves, load, parse

STREAMS = load()
_DONE = {"refusal", "text"}


def _encodable(text: str) -> bool:
    try:
        return bool(text.encode()) or not text
    except UnicodeEncodeError:
        return False


def _events(stream: Stream) -> list[dict[str, Any]]:
    return [json.loads(line.raw) for line in stream.lines if not line.broken]


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_expected_texts_are_what_the_stream_itself_says(stream: Stream) -> None:
    """The demo would hold the worker to a text that is not the response's."""
    said = [
        next(event[name] for name in _DONE if name in event)
        for event in _events(stream)
        if event["type"].endswith((".refusal.done", "_text.done"))
    ]
    completed = [each.text for each in stream.expected if each.outcome.status == "completed"]
    assert completed == said


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_integrity_in_the_programme_is_that_of_the_file(stream: Stream) -> None:
    """The programme would ask for `verified` where deltas are missing, or the other way round."""
    for expected in stream.expected:
        deltas = {
            event["sequence_number"]: event["delta"]
            for event in _events(stream)
            if event["type"].endswith(".delta")
            and event["output_index"] == expected.part.output_index
            and event.get("content_index", event.get("summary_index")) == expected.part.content_index
        }
        same = joined_halves("".join(deltas.values())) == expected.text
        assert same == (expected.outcome.integrity != "repaired")
        assert len(deltas) == expected.delta_count


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_final_copy_agrees_with_the_events(stream: Stream) -> None:
    """A stream would contradict itself, as no API does."""
    last = _events(stream)[-1]
    if last["type"] not in {"response.completed", "response.incomplete"}:
        assert {each.outcome.status for each in stream.expected} == {"abandoned"}
        return
    copies = [
        part.get("text", part.get("refusal"))
        for item in last["response"]["output"]
        for part in (*item.get("content", ()), *item.get("summary", ()))
    ]
    assert copies == [each.text for each in stream.expected]


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_lines_are_events_of_the_contract(stream: Stream) -> None:
    """A stream would be shaped otherwise than the API's, and the demo show something that never comes."""
    models = {
        get_args(model.model_fields["type"].annotation)[0]: model
        for model in vars(events).values()
        if isinstance(model, type) and issubclass(model, events.Event) and "type" in model.model_fields
    }
    ours = [event for event in _events(stream) if event["type"] in models]
    assert ours
    for event in ours:
        models[event["type"]].model_validate(event, strict=True)
    numbers = [event["sequence_number"] for event in _events(stream)]
    assert numbers[0] == 0
    assert set(range(numbers[-1])) - set(numbers) <= {23}, "numbered from 0; only the broken one is missing"


def test_programme_has_everything_that_the_demo_promises() -> None:
    """The demo would no longer show what its help and the README say."""
    outcomes = [outcome for plan in PROGRAMME for outcome in plan.outcomes]
    assert len(PROGRAMME) == 8
    assert Counter(outcome.kind for outcome in outcomes)["refusal"] == 2
    assert {outcome.status for outcome in outcomes} == {"completed", "incomplete", "abandoned"}
    assert {outcome.integrity for outcome in outcomes} == {"verified", "repaired", "unverified"}
    assert [plan.dead_letters for plan in PROGRAMME if plan.dead_letters] == [("malformed_json",)]
    assert any(outcome.duplicates for outcome in outcomes)
    assert any(not _encodable(line.delta) for stream in STREAMS for line in stream.lines)


def test_repeats_and_breaks_are_marked() -> None:
    """The view would show a producer's retry and a broken event as if nothing were wrong with them."""
    marked = {
        stream.name: (sum(line.repeat for line in stream.lines), sum(line.broken for line in stream.lines))
        for stream in STREAMS
    }
    assert {name: marks for name, marks in marked.items() if any(marks)} == {
        "post-office": (0, 1),
        "echo-valley": (6, 0),
    }


def test_stream_that_does_not_fit_the_programme_is_refused() -> None:
    """A file and its row in the programme could drift apart unseen."""
    plan = Plan("x", 0, 0, 0, (Outcome("refusal"),))
    created = '{"type":"response.created","response":{"id":"r","model":"m","safety_identifier":null}}'
    with pytest.raises(ValueError, match="not what the programme says"):
        parse(plan, created)


def test_halves_of_an_emoji_are_joined() -> None:
    """The expected text of a split emoji would be two halves."""
    assert joined_halves("a\ud83c\udf6ab") == "a\U0001f36ab"
    assert joined_halves("a\ud83c") == "a�"
