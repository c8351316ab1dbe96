"""The generator: what it makes is varied, and what it expects of it is what the contract says."""

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
    """Return enough responses that each kind of trouble is among them."""
    return [make_response("test", 0, number) for number in range(2000)]


def delta(number: int | None, text: str, output_index: int = 0) -> Event:
    """A delta of a refusal."""
    where = {"item_id": f"item_{output_index}", "output_index": output_index, "content_index": 0}
    return {"type": "response.refusal.delta", **where, "delta": text, "sequence_number": number}


def done(text: str) -> Event:
    """A refusal's `.done`."""
    where = {"item_id": "item_0", "output_index": 0, "content_index": 0}
    return {"type": "response.refusal.done", **where, "refusal": text}


def completed(*refusals: str) -> Event:
    """The end of a response, with a final copy of these refusals, an item each."""
    output = [{"type": "message", "content": [{"type": "refusal", "refusal": text}]} for text in refusals]
    return {"type": "response.completed", "response": {"output": output}}


def test_the_same_seed_gives_the_same_responses(responses: list[Response]) -> None:
    """A violation that cannot be made again cannot be understood."""
    assert [make_response("test", 0, number) for number in range(50)] == responses[:50]
    assert make_response("other", 0, 1) != responses[1]


def test_every_kind_of_response_is_made(responses: list[Response]) -> None:
    """A bench that never makes a kind of trouble proves nothing about it."""
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


def test_every_event_is_expected_to_become_something(responses: list[Response]) -> None:
    """What is not accounted for in the expectation cannot be missed in the result."""
    for response in responses:
        expected = response.expected
        becomes = expected.fragments + expected.closings + expected.types.total() + expected.letters.total()
        assert becomes == response.events
        assert expected.fragments == sum(text.fragments for text in expected.texts) + expected.late


def test_every_entry_has_a_name_of_its_own(responses: list[Response]) -> None:
    """A producer that cannot tell its entries apart cannot say which are stored."""
    tags = [entry.fields[TAG] for response in responses for entry in response.entries]
    assert len(set(tags)) == len(tags)


def test_the_envelope_is_faststreams() -> None:
    """Else the bench would test a format that nobody writes."""
    headers = {"response_id": "resp_1", "tenant": "bücher"}
    raw = envelope(headers, '{"type":"keepalive"}')
    assert BinaryMessageFormatV1.parse(raw) == (b'{"type":"keepalive"}', headers)


def copied(place: int, text: str) -> Event:
    """The end of an item whose copy has a refusal at this place."""
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
    """What the workers are held against must itself be right."""
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
def test_the_model_knows_what_contradicts_a_text(entries: list[list[Event | Bad]], contradicted: int) -> None:
    """A final copy contradicts only a text that is the only one of its kind when it comes."""
    assert len(expected_of(entries, "resp_1", {}).contradicted) == contradicted


def test_the_model_knows_what_does_not_wait_for_a_stuck_worker() -> None:
    """A text that is certain comes out without what that worker holds; so this is late."""
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
def test_the_model_knows_what_waits_for_a_stuck_worker(entries: list[list[Event | Bad]]) -> None:
    """A text whose user is not known, that only the final copy confirms, or whose deltas prove nothing."""
    user = {"safety_identifier": "user"}
    context = {} if entries == [[delta(1, "a")], [done("a")]] else user
    (text,) = expected_of(entries, "resp_1", context).texts
    assert not text.certain


def test_as_it_was_stored_is_as_it_was_made(responses: list[Response]) -> None:
    """What is expected of repeats that nobody planned would not be what is expected of planned ones."""
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


def test_halves_are_stored_as_json_can_hold_them(responses: list[Response]) -> None:
    """Half a surrogate pair must reach the worker, not die in the producer."""
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
