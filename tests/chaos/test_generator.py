"""Test the generator: its responses are varied, and its expectations follow the contract."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from faststream.redis.parser import BinaryMessageFormatV1

from chaos.generator import TAG, envelope, make_response
from chaos.model import Bad, Early, Event, expected_of

if TYPE_CHECKING:
    from chaos.generator import Response


@pytest.fixture(scope="module")
def responses() -> list[Response]:
    """Return enough responses to include all kinds of faults."""
    return [make_response("test", 0, number) for number in range(2000)]


def delta(number: int | None, text: str, output_index: int = 0) -> Event:
    """Return a delta of a refusal."""
    where = {"item_id": f"item_{output_index}", "output_index": output_index, "content_index": 0}
    return {"type": "response.refusal.delta", **where, "delta": text, "sequence_number": number}


def done(text: str) -> Event:
    """Return the `.done` of a refusal."""
    where = {"item_id": "item_0", "output_index": 0, "content_index": 0}
    return {"type": "response.refusal.done", **where, "refusal": text}


def completed(*refusals: str) -> Event:
    """Return the end of a response with a final copy of these refusals, one item each."""
    output = [{"type": "message", "content": [{"type": "refusal", "refusal": text}]} for text in refusals]
    return {"type": "response.completed", "response": {"output": output}}


def test_the_same_seed_gives_the_same_responses(responses: list[Response]) -> None:
    """Make the same responses from one seed, so that a violation can be reproduced."""
    assert [make_response("test", 0, number) for number in range(50)] == responses[:50]
    assert make_response("other", 0, 1) != responses[1]


def test_every_kind_of_response_is_made(responses: list[Response]) -> None:
    """Make all kinds of texts, endings, dead letters and entries."""
    texts = [text for response in responses for text in response.expected.texts]
    assert {text.part.kind for text in texts} == {"refusal", "reasoning", "reasoning_summary"}
    assert {text.status for text in texts} == {
        "completed",
        "incomplete",
        "failed",
        "cancelled",
        "abandoned",
    }
    assert {text.integrity for text in texts} == {"verified", "repaired", "unverified"}
    assert {text.part.response_id is None for text in texts} == {True, False}
    letters: Counter[str] = Counter()
    for response in responses:
        for (_, reason), count in response.expected.letters.items():
            letters[reason] += count
    assert set(letters) == {"malformed_json", "invalid_event", "oversized"}
    assert sum(response.expected.late for response in responses) > 0
    assert any(entry.events > 1 for response in responses for entry in response.entries)
    shapes = {name for response in responses for entry in response.entries for name in entry.fields}
    assert {"event", "__data__", "type"} <= shapes


def test_every_event_is_accounted_for(responses: list[Response]) -> None:
    """Account for each event in the expectations. Otherwise a lost event would go unnoticed."""
    for response in responses:
        expected = response.expected
        becomes = expected.fragments + expected.closings + expected.types.total() + expected.letters.total()
        assert becomes == response.events
        assert expected.fragments == sum(text.fragments for text in expected.texts) + expected.late


def test_every_entry_has_a_unique_tag(responses: list[Response]) -> None:
    """Tag each entry uniquely, so that a producer can find the stored ones."""
    tags = [entry.fields[TAG] for response in responses for entry in response.entries]
    assert len(set(tags)) == len(tags)


def test_the_envelope_is_faststreams() -> None:
    """Write envelopes in FastStream's format."""
    headers = {"response_id": "resp_1", "tenant": "bücher"}
    raw = envelope(headers, '{"type":"keepalive"}')
    assert BinaryMessageFormatV1.parse(raw) == (b'{"type":"keepalive"}', headers)


def copied(place: int, text: str) -> Event:
    """Return the end of an item with a copy of a refusal at this content index."""
    content = [*[{"type": "vendor_part"}] * place, {"type": "refusal", "refusal": text}]
    item = {"type": "message", "id": "item_0", "content": content}
    return {"type": "response.output_item.done", "output_index": 0, "item": item}


@pytest.mark.parametrize(
    ("entries", "text", "status", "integrity", "late"),
    [
        ([[delta(1, "a")], [delta(2, "b")], [done("ab")]], "ab", "completed", "verified", 0),
        ([[delta(2, "b")], [delta(1, "a")], [delta(2, "b")], [done("ab")]], "ab", "completed", "verified", 0),
        ([[delta(None, "a")], [delta(None, "a")], [done("a")]], "a", "completed", "repaired", 0),
        ([[delta(0, "a")], [delta(0, "b")], [done("ab")]], "ab", "completed", "verified", 0),
        ([[delta(1, "a")], [done("a")], [delta(2, "b")]], "a", "completed", "verified", 1),
        ([[done("a"), delta(1, "a")]], "a", "completed", "repaired", 1),
        ([[delta(1, "a"), copied(1, "a")]], "a", "completed", "verified", 0),
        ([[delta(1, "a"), copied(1, "ab")]], "ab", "completed", "repaired", 0),
        ([[done("a")], [copied(1, "a")]], "a", "completed", "repaired", 0),
        ([[copied(1, "a")], [done("a")]], "a", "completed", "repaired", 0),
        ([[delta(1, "a")]], "a", "abandoned", "unverified", 0),
        ([[delta(1, "\ud83d")], [delta(2, "\ude42")], [done("🙂")]], "🙂", "completed", "verified", 0),
        ([[delta(1, "\ud83d")], [done("\ud83d")]], "\ufffd", "completed", "verified", 0),
        ([[delta(1, "a"), {"type": "error", "code": "boom"}]], "a", "failed", "unverified", 0),
        ([[delta(1, "a"), Bad("{", "malformed_json")]], "a", "abandoned", "unverified", 0),
    ],
)
def test_the_model_knows_the_contract(
    entries: list[list[Event | Bad]], text: str, status: str, integrity: str, late: int
) -> None:
    """Expect the results of the contract in simple cases."""
    expected = expected_of(entries, "resp_1", {})
    (only,) = expected.texts
    assert (only.text, only.status, only.integrity, expected.late) == (text, status, integrity, late)


@pytest.mark.parametrize(
    ("entries", "contradicted"),
    [
        ([[done("a")], [done("b")]], 1),
        ([[done("a")], [completed("a")]], 0),
        ([[done("a")], [completed("b")]], 1),
        ([[completed("a")], [completed("b")]], 1),
        ([[done("a")], [completed("b", "a")]], 0),
        ([[done("a")], [delta(1, "b", 1)], [completed("b")]], 0),
        ([[done("a")], [completed("b")], [delta(1, "b", 1)]], 1),
        ([[delta(1, "b", 1)], [completed("a")], [delta(1, "b")]], 0),
    ],
)
def test_the_model_expects_contradictions(entries: list[list[Event | Bad]], contradicted: int) -> None:
    """Expect a contradiction by a final copy only if the text is the only one of its kind."""
    assert len(expected_of(entries, "resp_1", {}).contradicted) == contradicted


def test_certain_texts_do_not_wait_for_a_stuck_worker() -> None:
    """Expect a certain text to come out without a stuck worker's entries, which are then late."""
    created = {"type": "response.created", "response": {"safety_identifier": "user"}}
    held, begins, ends = delta(None, "b"), delta(1, "a"), done("a")
    (text,) = expected_of([[created], [begins], [ends]], "resp_1", {}).texts
    assert text.certain
    waited = expected_of([[created], [held], [begins], [ends]], "resp_1", {})
    assert [each.integrity for each in waited.texts] == ["repaired"]
    early = expected_of([[created], Early(text), [held], [begins], [ends]], "resp_1", {})
    assert [(each.integrity, each.fragments, each.late) for each in early.texts] == [("verified", 1, 1)]


@pytest.mark.parametrize(
    "entries",
    [
        [[delta(1, "a")], [done("a")]],
        [[completed("a")]],
        [[delta(1, "a")], [completed("a")]],
        [[delta(None, "a")], [done("a")]],
        [[delta(1, "a"), delta(1, "b")], [done("ab")]],
        [[delta(1, "a")], [done("b")]],
    ],
)
def test_uncertain_texts_wait_for_a_stuck_worker(entries: list[list[Event | Bad]]) -> None:
    """Expect an uncertain text to wait: unknown user, only a final copy, or unreliable deltas."""
    user = {"safety_identifier": "user"}
    context = {} if entries == [[delta(1, "a")], [done("a")]] else user
    (text,) = expected_of(entries, "resp_1", context).texts
    assert not text.certain


def test_planned_and_unplanned_repeats_are_expected_alike(responses: list[Response]) -> None:
    """Expect the same result for planned and unplanned repeats."""
    for response in responses[:200]:
        numbers = range(len(response.entries))
        assert response.stored_as(numbers) == response
        twice = response.stored_as([*numbers, *numbers])
        assert twice.events == 2 * response.events
        again = Counter(
            {(len(numbers) + n, reason): some for (n, reason), some in response.expected.letters.items()}
        )
        assert twice.expected.letters == response.expected.letters + again
        assert {text.part for text in twice.expected.texts} == {text.part for text in response.expected.texts}


def test_lone_surrogates_are_escaped(responses: list[Response]) -> None:
    """Encode lone surrogates as JSON escapes, so that they reach the worker."""
    for response in responses:
        for entry in response.entries:
            for value in entry.fields.values():
                assert isinstance(value, bytes) or value.encode("utf-8") is not None
    events = [entry.fields.get("event") for response in responses for entry in response.entries]
    halves = [event for event in events if isinstance(event, str) and "\\ud83d" in event and _is_json(event)]
    assert halves


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
