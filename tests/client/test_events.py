"""Test the event models: which events of real servers they accept, and which they refuse."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from deltaloom import events
from deltaloom.events import (
    ContentPartDone,
    ErrorEvent,
    Event,
    MessageItem,
    OtherItem,
    OtherPart,
    OutputItemDone,
    ReasoningItem,
    RefusalPart,
    ResponseCompleted,
    ResponseSnapshot,
    TextPart,
)

Json = dict[str, Any]

_PART: Json = {"item_id": "it_1", "output_index": 0, "content_index": 0, "sequence_number": 1}
_SUMMARY: Json = {"item_id": "it_1", "output_index": 0, "summary_index": 0, "sequence_number": 1}
_RESPONSE: Json = {"response": {"id": "resp_1", "model": "m", "output": []}, "sequence_number": 9}

GOOD: dict[type[Event], Json] = {
    events.RefusalDelta: {"type": "response.refusal.delta", "delta": "x", **_PART},
    events.RefusalDone: {"type": "response.refusal.done", "refusal": "x", **_PART},
    events.ReasoningTextDelta: {"type": "response.reasoning_text.delta", "delta": "x", **_PART},
    events.ReasoningTextDone: {"type": "response.reasoning_text.done", "text": "x", **_PART},
    events.ReasoningSummaryTextDelta: {
        "type": "response.reasoning_summary_text.delta",
        "delta": "x",
        **_SUMMARY,
    },
    events.ReasoningSummaryTextDone: {
        "type": "response.reasoning_summary_text.done",
        "text": "x",
        **_SUMMARY,
    },
    events.OutputTextDelta: {"type": "response.output_text.delta", "delta": "x", **_PART},
    events.OutputTextDone: {"type": "response.output_text.done", "text": "x", **_PART},
    events.ContentPartDone: {
        "type": "response.content_part.done",
        "part": {"type": "refusal", "refusal": "x"},
        **_PART,
    },
    events.ContentPartAdded: {
        "type": "response.content_part.added",
        "part": {"type": "refusal", "refusal": "x"},
        **_PART,
    },
    events.ReasoningPartAdded: {
        "type": "response.reasoning_part.added",
        "part": {"type": "reasoning_text", "text": "x"},
        **_PART,
    },
    events.ReasoningSummaryPartAdded: {
        "type": "response.reasoning_summary_part.added",
        "part": {"type": "summary_text", "text": "x"},
        **_SUMMARY,
    },
    events.ReasoningPartDone: {
        "type": "response.reasoning_part.done",
        "part": {"type": "reasoning_text", "text": "x"},
        **_PART,
    },
    events.ReasoningSummaryPartDone: {
        "type": "response.reasoning_summary_part.done",
        "part": {"type": "summary_text", "text": "x"},
        **_SUMMARY,
    },
    events.OutputItemAdded: {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {"type": "message", "id": "it_1", "content": [{"type": "refusal", "refusal": "x"}]},
        "sequence_number": 1,
    },
    events.OutputItemDone: {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": {"type": "message", "id": "it_1", "content": []},
        "sequence_number": 1,
    },
    events.ResponseCreated: {"type": "response.created", **_RESPONSE},
    events.ResponseCompleted: {"type": "response.completed", **_RESPONSE},
    events.ResponseQueued: {"type": "response.queued", **_RESPONSE},
    events.ResponseInProgress: {"type": "response.in_progress", **_RESPONSE},
    events.ResponseDone: {"type": "response.done", **_RESPONSE},
    events.ResponseIncomplete: {"type": "response.incomplete", **_RESPONSE},
    events.ResponseFailed: {"type": "response.failed", **_RESPONSE},
    events.ResponseCancelled: {"type": "response.cancelled", **_RESPONSE},
    events.ResponseCanceled: {"type": "response.canceled", **_RESPONSE},
    events.ErrorEvent: {"type": "error", "code": "x", "message": "y", "sequence_number": 1},
    events.ResponseErrorEvent: {
        "type": "response.error",
        "code": "x",
        "message": "y",
        "sequence_number": 1,
    },
    events.PartRedacted: {"type": "deltaloom.part.redacted", "kind": "reasoning", **_PART},
    events.ProducerLoss: {
        "type": "deltaloom.producer.loss",
        "response_id": "resp_1",
        "dropped": 3,
        "scope": "process",
        "sequence_number": 1,
    },
    events.ResponseFallback: {
        "type": "deltaloom.response.fallback",
        "response_id": "resp_1",
        "from_model": "a",
        "to_model": "b",
        "trigger": "refusal",
        "sequence_number": 1,
    },
}
"""A good event for each model."""


def _models() -> set[type[Event]]:
    return {
        model
        for model in vars(events).values()
        if isinstance(model, type) and issubclass(model, Event) and "type" in model.model_fields
    }


_OPTIONAL = {"sequence_number", "item_id", "code", "message", "response_id", "dropped", "scope"} | {
    *("from_model", "to_model", "trigger")
}
TEXTS: dict[type[Event], str] = {
    events.RefusalDone: "refusal",
    events.ReasoningTextDone: "text",
    events.ReasoningSummaryTextDone: "text",
    events.OutputTextDone: "text",
}
"""The text field of each `.done` event. A checksum may replace it."""
BEGINNINGS = {
    events.OutputItemAdded,
    events.ContentPartAdded,
    events.ReasoningPartAdded,
    events.ReasoningSummaryPartAdded,
}
"""Events that are usually empty and require only their type."""
REQUIRED = [
    (model, name)
    for model, event in GOOD.items()
    for name in event
    if (model not in BEGINNINGS or name == "type")
    and name not in _OPTIONAL
    and name != TEXTS.get(model)
    and name != "response"
]
TYPED = [(model, name) for model, event in GOOD.items() for name in event if name != "type"]
INDEXES = [(model, name) for model, event in GOOD.items() for name in event if name.endswith("_index")]


def test_every_model_has_an_example() -> None:
    """Include each model in the tests below."""
    assert set(GOOD) == _models()


@pytest.mark.parametrize("model", GOOD)
def test_good_event_with_extra_fields_is_read(model: type[Event]) -> None:
    """Accept additional fields, such as `obfuscation` and `logprobs`."""
    event = model.model_validate(GOOD[model] | {"obfuscation": "xyz", "logprobs": []}, strict=True)
    assert get_args(model.model_fields["type"].annotation) == (GOOD[model]["type"],)
    assert event.sequence_number == GOOD[model]["sequence_number"]


@pytest.mark.parametrize("model", GOOD)
def test_no_number_and_no_item_id_is_needed(model: type[Event]) -> None:
    """Accept events without sequence number and item id, as some servers send them."""
    bare = {name: value for name, value in GOOD[model].items() if name not in {"sequence_number", "item_id"}}
    assert model.model_validate(bare, strict=True).sequence_number is None


@pytest.mark.parametrize(("model", "name"), REQUIRED)
def test_missing_field_is_refused(model: type[Event], name: str) -> None:
    """Refuse an event without a required field."""
    event = {key: value for key, value in GOOD[model].items() if key != name}
    with pytest.raises(ValidationError, match=r"(?i)missing|required"):
        model.model_validate(event)


@pytest.mark.parametrize(("model", "name"), TYPED)
@pytest.mark.parametrize("wrong", [True, 1.5, ["x"]], ids=["bool", "float", "list"])
def test_mistyped_field_is_refused(model: type[Event], name: str, wrong: object) -> None:
    """Refuse a mistyped field. Otherwise a wrong value could become part of a text or an identity."""
    with pytest.raises(ValidationError):
        model.model_validate(GOOD[model] | {name: wrong}, strict=True)


@pytest.mark.parametrize(("model", "name"), INDEXES)
@pytest.mark.parametrize("wrong", [-1, 2**31, 10**400, "0", None])
def test_index_is_a_small_number(model: type[Event], name: str, wrong: object) -> None:
    """Refuse an index that is negative, too large, a string or null."""
    with pytest.raises(ValidationError):
        model.model_validate(GOOD[model] | {name: wrong}, strict=True)


@pytest.mark.parametrize("number", [-(2**63), -1, 0, 2**63 - 1])
def test_sequence_number_is_any_64_bit_integer(number: int) -> None:
    """Accept any signed 64-bit sequence number."""
    event = GOOD[events.RefusalDelta] | {"sequence_number": number}
    assert events.RefusalDelta.model_validate(event, strict=True).sequence_number == number


@pytest.mark.parametrize("number", [-(2**63) - 1, 2**63, 10**400])
def test_larger_sequence_number_is_refused(number: int) -> None:
    """Refuse larger sequence numbers, which cannot be stored."""
    with pytest.raises(ValidationError):
        events.RefusalDelta.model_validate(
            GOOD[events.RefusalDelta] | {"sequence_number": number}, strict=True
        )


def test_lone_half_of_a_surrogate_pair_is_kept() -> None:
    """Keep a lone surrogate, since an emoji may be split between deltas."""
    event = GOOD[events.RefusalDelta] | {"delta": "a\ud83d"}
    assert events.RefusalDelta.model_validate(event, strict=True).delta == "a\ud83d"


@pytest.mark.parametrize("item_id", ["", "\ud800"], ids=["empty", "half"])
def test_item_id_that_cannot_be_a_key_is_refused(item_id: str) -> None:
    """Refuse an item id that cannot be part of a key."""
    with pytest.raises(ValidationError):
        events.RefusalDelta.model_validate(GOOD[events.RefusalDelta] | {"item_id": item_id}, strict=True)


def test_item_id_of_any_length_is_read() -> None:
    """Accept an item id of any length. Otherwise a long id would cost its event."""
    event = GOOD[events.RefusalDelta] | {"item_id": "x" * 5000}
    assert events.RefusalDelta.model_validate(event, strict=True).item_id == "x" * 5000


# ------------------------------------------------------------------------------ checksums and other additions

SHA256 = "0123456789abcdefABCDEF" + "0" * 42


@pytest.mark.parametrize(("model", "name"), TEXTS.items())
def test_done_may_have_a_checksum_in_place_of_its_text(model: type[Event], name: str) -> None:
    """Accept a checksum in place of a long text."""
    bare = {key: value for key, value in GOOD[model].items() if key != name}
    event = model.model_validate(bare | {"text_sha256": SHA256, "text_bytes": 7}, strict=True)
    assert isinstance(event, events.TextDone)
    assert (getattr(event, name), event.text_sha256, event.text_bytes) == (None, SHA256, 7)


@pytest.mark.parametrize(("model", "name"), TEXTS.items())
@pytest.mark.parametrize("text", ["missing", None])
def test_done_may_lack_its_text(model: type[Event], name: str, text: str | None) -> None:
    """Accept a `.done` without a text. Otherwise its part would stay open until the idle timeout."""
    bare = {key: value for key, value in GOOD[model].items() if key != name}
    event = model.model_validate(bare if text else bare | {name: None}, strict=True)
    assert isinstance(event, events.TextDone)
    assert (getattr(event, name), event.text_sha256) == (None, None)


@pytest.mark.parametrize("count", [0, 2**63 - 1])
def test_count_is_any_that_can_be_stored(count: int) -> None:
    """Accept a size of 0 and the largest size that can be stored."""
    event = {"text_bytes": count, "integrity_source": "producer"} | GOOD[events.RefusalDone]
    read = events.RefusalDone.model_validate(event, strict=True)
    assert (read.text_bytes, read.integrity_source) == (count, "producer")


@pytest.mark.parametrize("model", [model for model, event in GOOD.items() if "response" in event])
def test_response_object_may_be_missing(model: type[Event]) -> None:
    """Accept an end without a response object."""
    event = model.model_validate({"type": GOOD[model]["type"]}, strict=True)
    assert event.response == ResponseSnapshot()  # type: ignore[attr-defined]


@pytest.mark.parametrize("prefix", ["", "provider_"])
def test_category_and_explanation_have_two_names(prefix: str) -> None:
    """Read category and explanation under either name."""
    words = {
        f"{prefix}category": "cyber",
        f"{prefix}explanation": "asked for malware",
        "reason_class": "policy",
    }
    detail = events.IncompleteDetail.model_validate(words, strict=True)
    assert (detail.reason_class, detail.provider_category, detail.provider_explanation) == (
        "policy",
        "cyber",
        "asked for malware",
    )


@pytest.mark.parametrize(
    ("part", "model"),
    [
        ({"type": "refusal", "refusal": "x"}, RefusalPart),
        ({"type": "output_text", "text": "x", "annotations": []}, TextPart),
        ({"type": "reasoning_text", "text": "x"}, TextPart),
        ({"type": "summary_text", "text": "x"}, TextPart),
        ({"type": "output_audio", "data": "…"}, OtherPart),
        ({"type": 7}, OtherPart),
        ({}, OtherPart),
    ],
)
def test_part_model_is_chosen_by_type(part: Json, model: type) -> None:
    """Choose a part's model by its type."""
    event = ContentPartDone.model_validate(GOOD[ContentPartDone] | {"part": part}, strict=True)
    assert type(event.part) is model


@pytest.mark.parametrize(
    ("item", "model"),
    [
        ({"type": "message", "id": "it", "content": [{"type": "refusal", "refusal": "x"}]}, MessageItem),
        ({"type": "message"}, MessageItem),
        ({"type": "message", "content": None}, MessageItem),
        ({"type": "reasoning", "id": "it", "summary": [], "encrypted_content": "…"}, ReasoningItem),
        (
            {"type": "reasoning", "content": None, "summary": [{"type": "summary_text", "text": "x"}]},
            ReasoningItem,
        ),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, OtherItem),
        ({"id": 7}, OtherItem),
    ],
)
def test_item_model_is_chosen_by_type(item: Json, model: type) -> None:
    """Choose an item's model by its type."""
    event = OutputItemDone.model_validate(GOOD[OutputItemDone] | {"item": item}, strict=True)
    assert type(event.item) is model


@pytest.mark.parametrize("code", ["rate_limit", 429, None])
def test_error_code_may_be_a_number(code: object) -> None:
    """Accept a number as error code. Otherwise the response's end would be a dead letter."""
    expected = None if code is None else str(code)
    flat = ErrorEvent.model_validate({"type": "error", "code": code}, strict=True)
    nested = ErrorEvent.model_validate({"type": "error", "error": {"code": code}}, strict=True)
    assert flat.code == expected
    assert nested.error is not None
    assert nested.error.code == expected


def test_string_may_stand_for_an_error_or_a_reason() -> None:
    """Accept strings in place of an error and a reason, as some gateways send them."""
    read = ResponseSnapshot.model_validate({"error": "boom", "incomplete_details": "length"}, strict=True)
    assert read.error == events.ErrorDetail(message="boom")
    assert read.incomplete_details == events.IncompleteDetail(reason="length")


def test_copied_text_may_be_null() -> None:
    """Accept null as a copied text."""
    content = [{"type": "output_text", "text": None}, {"type": "refusal", "refusal": "no"}]
    read = MessageItem.model_validate({"type": "message", "content": content}, strict=True)
    assert read.content == [TextPart(type="output_text"), RefusalPart(type="refusal", refusal="no")]


def test_snapshot_may_be_empty_or_have_unknown_items() -> None:
    """Accept a snapshot that is empty or has unknown items."""
    snapshot = {"output": [{"type": "web_search_call"}, {"type": "message", "content": [{"type": "new"}]}]}
    event = ResponseCompleted.model_validate(
        {"type": "response.completed", "response": snapshot}, strict=True
    )
    assert len(event.response.output or []) == 2
    empty = ResponseCompleted.model_validate({"type": "response.completed", "response": {}}, strict=True)
    assert empty.response == ResponseSnapshot()


def test_events_are_frozen() -> None:
    """Freeze events. Otherwise one handler could change the event of another."""
    event = events.RefusalDelta.model_validate(GOOD[events.RefusalDelta])
    with pytest.raises(ValidationError, match="frozen"):
        event.delta = "other"  # type: ignore[misc]  # which is what mypy says too
