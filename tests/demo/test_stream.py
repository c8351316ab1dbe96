"""Test the demo's recorded streams and their expected texts."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from typing import Any, get_args

import pytest

from deltaloom import events
from demo.plan import PROGRAMME, ExpectedOutcome, Plan
from demo.stream import Stream, joined_halves, load, parse

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
def test_expected_texts_are_those_of_the_stream(stream: Stream) -> None:
    """Expect the texts of the `.done` events of completed responses."""
    done = [
        next(event[name] for name in _DONE if name in event)
        for event in _events(stream)
        if event["type"].endswith((".refusal.done", "_text.done"))
    ]
    completed = [each.text for each in stream.expected if each.outcome.status == "completed"]
    assert completed == done


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_integrity_in_the_programme_is_that_of_the_file(stream: Stream) -> None:
    """Expect `repaired` exactly if the joined deltas differ from the text."""
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


@pytest.mark.parametrize(
    "stream", [each for each in STREAMS if not each.plan.dialect], ids=lambda stream: stream.name
)
def test_final_copy_agrees_with_the_events(stream: Stream) -> None:
    """End each finished stream with a final copy of all its texts; a translator writes none."""
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
    """Use only events that the contract's models accept, numbered from 0."""
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
    assert set(range(numbers[-1])) - set(numbers) <= {23}, "only the broken event may be missing"


def test_programme_has_everything_that_the_demo_promises() -> None:
    """Include all the cases that the demo's help and the README mention."""
    outcomes = [outcome for plan in PROGRAMME for outcome in plan.outcomes]
    assert len(PROGRAMME) == 11
    assert Counter(outcome.kind for outcome in outcomes)["refusal"] == 3
    assert {outcome.status for outcome in outcomes} == {"completed", "incomplete", "abandoned"}
    assert {outcome.integrity for outcome in outcomes} == {"verified", "repaired", "unverified"}
    assert [plan.dead_letters for plan in PROGRAMME if plan.dead_letters] == [("malformed_json",)]
    assert any(outcome.duplicates for outcome in outcomes)
    assert any(not _encodable(line.delta) for stream in STREAMS for line in stream.lines)


@pytest.mark.parametrize("plan", [plan for plan in PROGRAMME if plan.dialect], ids=lambda plan: plan.name)
def test_translated_texts_are_those_of_the_bytes(plan: Plan) -> None:
    """Expect the texts that the bytes of another provider have, read here without the translator."""
    body = (resources.files("demo") / "streams" / f"{plan.name}.sse").read_text(encoding="utf-8")
    values = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    stream = next(each for each in STREAMS if each.name == plan.name)
    assert [each.text for each in stream.expected] == [
        "".join(fragments) for fragments in zip(*map(_fragments, values), strict=True)
    ]
    assert stream.context["dialect"] == plan.dialect
    assert stream.context["upstream_response_id"] not in {"", stream.response_id}


def _fragments(value: dict[str, Any]) -> tuple[str, str]:
    """Return the reasoning, and the refusal or answer, in a message of any of the three providers."""
    delta = value.get("delta", {})
    reasoning, other = delta.get("thinking", ""), delta.get("text", "")
    for choice in value.get("choices", ()):
        reasoning += choice["delta"].get("reasoning_content") or ""
        other += choice["delta"].get("refusal") or ""
    for candidate in value.get("candidates", ()):
        for part in candidate.get("content", {}).get("parts", ()):
            reasoning += part["text"] if part.get("thought") else ""
            other += "" if part.get("thought") else part["text"]
    return reasoning, other


def test_repeats_and_breaks_are_marked() -> None:
    """Mark repeated and broken lines, which the view highlights."""
    marked = {
        stream.name: (sum(line.repeat for line in stream.lines), sum(line.broken for line in stream.lines))
        for stream in STREAMS
    }
    assert {name: marks for name, marks in marked.items() if any(marks)} == {
        "post-office": (0, 1),
        "echo-valley": (6, 0),
    }


def test_stream_that_does_not_fit_the_programme_is_refused() -> None:
    """Refuse a recording that does not match its plan. Otherwise the two could diverge unnoticed."""
    plan = Plan("x", 0, 0, 0, (ExpectedOutcome("refusal"),))
    created = '{"type":"response.created","response":{"id":"r","model":"m","safety_identifier":null}}'
    with pytest.raises(ValueError, match="not what the programme says"):
        parse(plan, created)


def test_halves_of_an_emoji_are_joined() -> None:
    """Join surrogate halves, and replace a lone one."""
    assert joined_halves("a\ud83c\udf6ab") == "a\U0001f36ab"
    assert joined_halves("a\ud83c") == "a�"
