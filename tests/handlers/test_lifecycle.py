"""Test full copies and response ends in the forms that different servers send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import limits
from handlers.core.effects import (
    Announced,
    Closing,
    ContextValues,
    Copy,
    Effect,
    Ending,
    Learned,
    Origin,
    Rank,
    UnattributableEventError,
)
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.lifecycle import handler

if TYPE_CHECKING:
    from deltaloom.messages import Kind

AT = Arrival(EntryId(1, 0), 0)
NAMED = Origin(AT, "resp_1")
UNNAMED = Origin(AT)
KEY = StreamKey("response", "resp_1")

MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "content": [{"type": "output_text", "text": "well"}, {"type": "refusal", "refusal": "no"}],
}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "content": [{"type": "reasoning_text", "text": "hm"}],
    "summary": [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}],
}
CALL = {"type": "function_call", "id": "fc_1", "arguments": "{}"}
COPIES = (
    Copy("rs_1", 0, 0, "reasoning", "hm"),
    Copy("rs_1", 0, 0, "reasoning_summary", "one"),
    Copy("rs_1", 0, 1, "reasoning_summary", "two"),
    Copy("msg_1", 2, 0, "output_text", "well"),
    Copy("msg_1", 2, 1, "refusal", "no"),
)
PLACES = tuple(copy._replace(item_id=None, text="") for copy in COPIES[:3])
"""Positions of the reasoning's texts, as its own end lists them."""


def effects(origin: Origin, **fields: Any) -> list[Effect]:
    """Return the effects of an event, validated like JSON."""
    route = next(route for route in handler.routes if route.event_type == fields["type"])
    return list(route.handle(route.model.model_validate(fields, strict=True), origin))


def ended(event_type: str, origin: Origin = NAMED, **response: Any) -> list[Effect]:
    """Return the effects of an event with this response object."""
    return effects(origin, type=event_type, response=response)


def test_created_gives_model_and_user() -> None:
    """Learn the model and the user."""
    learned = ended("response.created", model="m-1", safety_identifier="u-1", id="resp_other")
    assert learned == [Learned(KEY, "m-1", "u-1")]
    assert ended("response.created") == [Learned(KEY, None, None)]


def test_created_repairs_its_values() -> None:
    """Replace lone surrogates in learned values."""
    assert ended("response.created", model="m\ud83d") == [Learned(KEY, "m\ufffd", None)]


def test_created_without_a_response_id_is_ignored() -> None:
    """Ignore `response.created` without a response id. Otherwise each response would make a dead letter."""
    assert ended("response.created", UNNAMED, model="m-1") == []


@pytest.mark.parametrize(
    ("part", "kind", "text"),
    [
        ({"type": "refusal", "refusal": "no"}, "refusal", "no"),
        ({"type": "output_text", "text": "well"}, "output_text", "well"),
        ({"type": "reasoning_text", "text": "hm"}, "reasoning", "hm"),
        ({"type": "summary_text", "text": "one"}, "reasoning_summary", "one"),
        ({"type": "refusal", "refusal": ""}, "refusal", ""),
    ],
)
def test_copy_of_a_part_closes_it(part: dict[str, Any], kind: Any, text: str) -> None:
    """Close a part with its copy, for servers without `.done`."""
    found = effects(
        NAMED, type="response.content_part.done", part=part, item_id="it_1", output_index=1, content_index=2
    )
    assert found == [Closing(PartKey(KEY, 1, 2, kind), Rank.CONTENT_PART, text, "it_1")]


def test_copy_of_a_part_of_unknown_type_closes_nothing() -> None:
    """Ignore a vendor's own kind of part."""
    part = {"type": "output_audio", "data": "…"}
    found = effects(NAMED, type="response.content_part.done", part=part, output_index=0, content_index=0)
    assert found == []


def test_copy_of_an_item_closes_its_parts_and_the_rest() -> None:
    """Close all parts of an item with its copy."""
    assert effects(NAMED, type="response.output_item.done", output_index=3, item=REASONING) == [
        Closing(PartKey(KEY, 3, 0, "reasoning"), Rank.OUTPUT_ITEM, "hm", "rs_1"),
        Closing(PartKey(KEY, 3, 0, "reasoning_summary"), Rank.OUTPUT_ITEM, "one", "rs_1"),
        Closing(PartKey(KEY, 3, 1, "reasoning_summary"), Rank.OUTPUT_ITEM, "two", "rs_1"),
        Ending(KEY, 3, "completed", copies=tuple(place._replace(output_position=3) for place in PLACES)),
    ]


def test_index_in_an_item_counts_every_part() -> None:
    """Count all parts of an item, also those of other kinds."""
    found = effects(NAMED, type="response.output_item.done", output_index=0, item=MESSAGE)
    assert [effect.part.content_index for effect in found if isinstance(effect, Closing)] == [0, 1]


@pytest.mark.parametrize("content", [None, [], [{"type": "refusal", "refusal": ""}]])
def test_item_without_texts_only_ends(content: Any) -> None:
    """Ignore empty texts in a copy. Otherwise they would replace the deltas."""
    item = {"type": "message", "id": "msg_1", "content": content}
    found = effects(NAMED, type="response.output_item.done", output_index=0, item=item)
    assert found == [Ending(KEY, 0, "completed")]


def test_item_of_another_type_ends_its_place() -> None:
    """End the output index of an item of any type."""
    found = effects(NAMED, type="response.output_item.done", output_index=1, item=CALL)
    assert found == [Ending(KEY, 1, "completed")]


def test_without_a_response_id_an_item_ends_itself() -> None:
    """End the item itself if there is no response id."""
    key = StreamKey("item", "rs_1")
    found = effects(UNNAMED, type="response.output_item.done", output_index=0, item=REASONING)
    assert found[-1] == Ending(key, None, "completed", copies=PLACES)
    assert all(effect.part.stream_key == key for effect in found if isinstance(effect, Closing))


def test_without_a_response_id_a_tool_call_is_ignored() -> None:
    """Ignore a tool call without a response id. Otherwise each would make a dead letter."""
    assert effects(UNNAMED, type="response.output_item.done", output_index=0, item=CALL) == []


def test_completed_has_the_final_copy() -> None:
    """Return the final copy with each text's position."""
    found = ended("response.completed", output=[REASONING, CALL, MESSAGE])
    assert found == [Ending(KEY, None, "completed", None, COPIES)]


@pytest.mark.parametrize(
    ("event_type", "status"),
    [
        ("response.incomplete", "incomplete"),
        ("response.failed", "failed"),
        ("response.cancelled", "cancelled"),
        ("response.canceled", "cancelled"),
        ("response.done", "completed"),
    ],
)
def test_every_end_has_the_final_copy(event_type: str, status: str) -> None:
    """Return the final copy of all kinds of ends."""
    ending = only_ending(ended(event_type, output=[REASONING, CALL, MESSAGE]))
    assert (ending.status, ending.copies) == (status, COPIES)


@pytest.mark.parametrize("event_type", ["response.completed", "response.done"])
@pytest.mark.parametrize(
    ("response", "status", "reason", "reason_class"),
    [
        ({"incomplete_details": {"reason": "content_filter"}}, "incomplete", "content_filter", "safety"),
        ({}, "incomplete", None, "unknown"),
        ({"error": {"code": "cyber_policy"}}, "failed", "cyber_policy", "policy"),
        ({"error": {"code": "cyber_policy"}}, "Failed", "cyber_policy", "policy"),
        ({}, "cancelled", "cancelled", "cancelled"),
        ({}, "canceled", "cancelled", "cancelled"),
    ],
)
def test_response_ends_with_its_status(
    event_type: str, response: dict[str, Any], status: str, reason: str | None, reason_class: str
) -> None:
    """Use the response's own status. Otherwise a filtered response would look complete."""
    expected = "cancelled" if status == "canceled" else status.casefold()
    assert ended(event_type, status=status, **response) == [
        Ending(KEY, None, expected, reason, (), reason_class)
    ]


@pytest.mark.parametrize("status", [None, "completed", "in_progress", "new"])
def test_response_of_another_status_is_completed(status: str | None) -> None:
    """Treat unknown statuses as completed."""
    assert ended("response.completed", status=status) == [Ending(KEY, None, "completed")]


@pytest.mark.parametrize("event_type", ["response.incomplete", "response.failed"])
def test_type_of_an_end_is_preferred_to_its_status(event_type: str) -> None:
    """Prefer the event's type to the response's status, which some servers do not update."""
    ending = only_ending(ended(event_type, status="completed"))
    assert ending.status == event_type.removeprefix("response.")


@pytest.mark.parametrize("event_type", ["error", "response.error"])
def test_error_of_either_name_ends_the_response(event_type: str) -> None:
    """End the response with an error event of either name."""
    assert only_ending(effects(NAMED, type=event_type, code="server_error")).status == "failed"


def test_error_next_to_the_response_gives_the_reason() -> None:
    """Read an error next to the response object."""
    error = {"code": "content_filter", "message": "no"}
    ending = only_ending(effects(NAMED, type="response.failed", error=error))
    assert (ending.reason, ending.reason_class, ending.provider_explanation) == (
        "content_filter",
        "safety",
        "no",
    )


_INNER = {"innererror": {"code": "ResponsibleAIPolicyViolation"}}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "400", **_INNER}, "ResponsibleAIPolicyViolation"),
        ({"code": 400, "type": "invalid_request_error", **_INNER}, "ResponsibleAIPolicyViolation"),
        ({"code": 400, "type": "content_filter"}, "content_filter"),
        ({"code": "server_error", "type": "content_policy_violation"}, "content_policy_violation"),
        ({"innererror": {"innererror": {"code": "content_filter"}}}, "content_filter"),
        ({"innererror": "content_filter"}, "content_filter"),
        ({"code": 500, "error": {"code": "content_filter"}}, "content_filter"),
        ({"code": 500, "error": {"error": {"type": "content_filter"}}}, "content_filter"),
        ({"code": "400", "provider_specific_fields": _INNER}, "ResponsibleAIPolicyViolation"),
        ("content_filter", "content_filter"),
        ({"code": 429, "type": "rate_limit_exceeded"}, "rate_limit_exceeded"),
        ({"code": 429, "type": "never_heard_of"}, "429"),
        ({"code": "never_heard_of", "type": "server_error"}, "never_heard_of"),
        ({"code": "content_filter", **_INNER}, "content_filter"),
        ("boom", None),
        ('{"error": {"code": "content_filter"}}', "content_filter"),
        (
            {"code": 400, "message": ' {"error": {"message": "no", "code": "content_filter"}}'},
            "content_filter",
        ),
        ({"code": 400, "message": '{"error": {"innererror": {"code": "content_filter"}}}'}, "content_filter"),
        ({"code": '{"code": "content_filter"}'}, "content_filter"),
        ({"code": 400, "message": '{"error": {"code": "never_heard_of"}}'}, "400"),
        ({"code": 400, "message": '{"error": {"code": "content_filter"}'}, "400"),
        ({"code": 400, "message": '{"error": {"code": ["content_filter"], "type": 7}}'}, "400"),
        ({"code": 400, "message": '{"error":' * 5 + '{"code": "content_filter"}' + "}" * 5}, "400"),
        ({"code": 400, "message": '{"error":' * 20_000}, "400"),
        ({"code": 400, "message": '{"a": "' + "a" * 65_536 + '", "code": "content_filter"}'}, "400"),
    ],
)
def test_policy_code_is_found_wherever_servers_put_it(error: Any, reason: str | None) -> None:
    """Find a policy's code at any place in an error. Otherwise an HTTP status would hide it."""
    assert only_ending(ended("response.failed", error=error)).reason == reason
    assert only_ending(effects(NAMED, type="error", error=error)).reason == reason
    if isinstance(error, dict) and not {"type", "error", "provider_specific_fields"} & error.keys():
        assert only_ending(effects(NAMED, type="error", **error)).reason == reason


def test_incomplete_response_may_have_its_reason_in_its_error() -> None:
    """Read the reason from `error` if `incomplete_details` has none that is known."""
    details = {"reason": "other"}
    ending = only_ending(
        ended("response.incomplete", incomplete_details=details, error={"code": "content_filter"})
    )
    assert (ending.reason, ending.reason_class) == ("content_filter", "safety")


@pytest.mark.parametrize(
    "event_type", ["response.queued", "response.in_progress", "response.completed", "response.failed"]
)
def test_any_response_gives_model_and_user(event_type: str) -> None:
    """Learn model and user from all response events, since `response.created` may be missing."""
    learned, *rest = ended(event_type, model="m-1", safety_identifier="u-1")
    assert learned == Learned(KEY, "m-1", "u-1")
    assert rest == [] or isinstance(rest[0], Ending)
    assert not any(isinstance(effect, Learned) for effect in ended(event_type))
    assert not any(isinstance(effect, Learned) for effect in ended(event_type, UNNAMED, model="m-1"))


@pytest.mark.parametrize("output", [[], None])
def test_empty_final_copy_is_ignored(output: Any) -> None:
    """Ignore an empty final copy."""
    assert ended("response.completed", output=output) == [Ending(KEY, None, "completed")]


def test_empty_text_in_the_final_copy_is_kept() -> None:
    """Keep empty texts in the final copy, since their item ids identify the empty parts."""
    output = [{"type": "message", "id": "it", "content": [{"type": "refusal", "refusal": ""}]}]
    copies = (Copy("it", 0, 0, "refusal", ""),)
    assert ended("response.completed", output=output) == [Ending(KEY, None, "completed", None, copies)]


def test_incomplete_has_a_reason() -> None:
    """Return the reason of an incomplete response."""
    found = ended("response.incomplete", incomplete_details={"reason": "max_output_tokens"}, output=[])
    assert found == [Ending(KEY, None, "incomplete", "max_output_tokens", (), "length")]
    assert ended("response.incomplete") == [Ending(KEY, None, "incomplete", None, (), "unknown")]


@pytest.mark.parametrize(
    ("error", "reason", "reason_class"),
    [
        ({"code": "server_error", "message": "no", "type": "t"}, "server_error", "error"),
        ({"code": 503}, "503", "unknown"),
        ({"type": "overloaded"}, "overloaded", "error"),
        ({"code": "", "type": "overloaded"}, "overloaded", "error"),
        ({"code": "a\ud83d"}, "a\ufffd", "unknown"),
        ({}, None, "error"),
        (None, None, "error"),
    ],
)
def test_failed_has_a_reason(error: Any, reason: str | None, reason_class: str) -> None:
    """Return the reason of a failed response."""
    assert ended("response.failed", error=error) == [Ending(KEY, None, "failed", reason, (), reason_class)]


@pytest.mark.parametrize(
    ("event", "reason", "reason_class"),
    [
        ({"code": "rate_limit_exceeded", "message": "slow down"}, "rate_limit_exceeded", "error"),
        ({"code": 429}, "429", "unknown"),
        ({"error": {"code": "rate_limit_exceeded"}}, "rate_limit_exceeded", "error"),
        ({"error": {"code": 429, "type": "t"}}, "429", "unknown"),
        (
            {"error": {"type": "rate_limit_exceeded", "message": "slow down"}},
            "rate_limit_exceeded",
            "error",
        ),
        ({"code": "outer", "error": {"code": "inner"}}, "outer", "unknown"),
        ({"code": None, "message": "slow down"}, None, "error"),
        ({}, None, "error"),
    ],
)
def test_error_ends_the_response_flat_or_nested(
    event: dict[str, Any], reason: str | None, reason_class: str
) -> None:
    """Read flat and nested errors."""
    assert effects(NAMED, type="error", **event) == [Ending(KEY, None, "failed", reason, (), reason_class)]


# ------------------------------------------------------------------------------- the class of an end's reason


def only_ending(found: list[Effect]) -> Ending:
    """Return the only effect, which must be an ending."""
    (ending,) = found
    assert isinstance(ending, Ending)
    return ending


@pytest.mark.parametrize("code", ["cyber_policy", "content_filter"])
@pytest.mark.parametrize("nested", [True, False])
def test_message_of_a_policy_is_kept(code: str, *, nested: bool) -> None:
    """Keep the error message of a policy as explanation."""
    error = {"code": code, "message": "asked for \ud83d"}
    event = {"error": error} if nested else error
    ending = only_ending(effects(NAMED, type="error", **event))
    assert (ending.status, ending.reason, ending.provider_explanation) == ("failed", code, "asked for \ufffd")
    assert only_ending(ended("response.failed", error=error)) == ending


@pytest.mark.parametrize("code", ["server_error", "never_heard_of", None])
def test_message_of_a_fault_is_not_kept(code: str | None) -> None:
    """Drop the message of a technical error, since it may quote anything."""
    error = {"code": code, "message": "no"}
    assert only_ending(ended("response.failed", error=error)).provider_explanation is None
    assert only_ending(effects(NAMED, type="error", **error)).provider_explanation is None


def test_message_of_a_refusal_is_kept() -> None:
    """Keep the error message of a refusal as explanation."""
    error = {"code": "x", "message": "declined", "reason_class": "refusal"}
    ending = only_ending(ended("response.failed", error=error))
    assert (ending.reason_class, ending.provider_explanation) == ("refusal", "declined")


def test_producer_may_send_class_category_and_explanation() -> None:
    """Use the class, category and explanation that a producer sends."""
    details = {
        "reason": "stop\ud83d",
        "reason_class": "new\ud83d",
        "category": "c\ud83d",
        "explanation": "e\ud83d",
    }
    ending = only_ending(ended("response.incomplete", incomplete_details=details))
    repaired = ("stop\ufffd", (), "new\ufffd", "c\ufffd", "e\ufffd")
    assert ending == Ending(KEY, None, "incomplete", *repaired)


def test_explanation_is_preferred_to_the_message() -> None:
    """Prefer an explanation to the general message."""
    error = {"code": "cyber_policy", "message": "general", "provider_explanation": "particular"}
    assert only_ending(ended("response.failed", error=error)).provider_explanation == "particular"


@pytest.mark.parametrize(
    ("provider", "value", "reason_class"),
    [
        (None, "refusal", "refusal"),
        (None, "OTHER", "unknown"),
        ("aws.bedrock", "content_filtered", "safety"),
        ("somebody", "max_tokens", "length"),
        (None, "MAX_TOKENS", "length"),
        (None, "never_heard_of", "unknown"),
    ],
)
def test_class_is_that_of_the_table(provider: str | None, value: str, reason_class: str) -> None:
    """Look up the class by provider and value, in any letter case."""
    origin = NAMED._replace(context=ContextValues(provider=provider))
    ending = only_ending(ended("response.incomplete", origin, incomplete_details={"reason": value}))
    assert (ending.reason, ending.reason_class) == (value, reason_class)


def test_completed_has_no_class() -> None:
    """Record no reason for a completed response."""
    details = {"reason": "content_filter", "reason_class": "safety"}
    ending = only_ending(ended("response.completed", incomplete_details=details))
    assert (ending.status, ending.reason, ending.reason_class) == ("completed", None, None)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({}, "cancelled"),
        ({"incomplete_details": {"reason": "client_disconnected"}}, "client_disconnected"),
        ({"incomplete_details": {}}, "cancelled"),
        ({"error": {"code": "client_disconnected"}}, "client_disconnected"),
        ({"incomplete_details": {"reason": "user", "reason_class": "safety"}}, "user"),
    ],
)
def test_cancelled_has_a_reason(response: dict[str, Any], reason: str) -> None:
    """Record the reason of a cancelled response."""
    assert ended("response.cancelled", **response) == [
        Ending(KEY, None, "cancelled", reason, (), "cancelled"),
    ]
    assert effects(NAMED, type="response.cancelled") == [
        Ending(KEY, None, "cancelled", "cancelled", (), "cancelled"),
    ]


@pytest.mark.parametrize("reason", ["cancelled", "client_disconnected"])
def test_other_ends_for_a_cancellation_are_cancelled_too(reason: str) -> None:
    """Treat other ends with a cancellation's reason as cancelled."""
    ending = Ending(KEY, None, "cancelled", reason, (), "cancelled")
    assert ended("response.incomplete", incomplete_details={"reason": reason}) == [ending]
    assert ended("response.failed", error={"code": reason}) == [ending]
    assert effects(NAMED, type="error", code=reason) == [ending]


@pytest.mark.parametrize("length", [limits.ID, limits.ID + 1])
def test_item_id_beyond_its_limit_is_not_ended(length: int) -> None:
    """Ignore an item whose id exceeds the limit."""
    item = MESSAGE | {"id": "x" * length}
    keys = [_key(effect) for effect in ended("response.completed", UNNAMED, output=[item])]
    assert keys == ([StreamKey("item", "x" * length)] if length == limits.ID else [])


def test_without_a_response_id_the_items_of_the_final_copy_end() -> None:
    """End the items of the final copy if there is no response id."""
    reasoning, message = StreamKey("item", "rs_1"), StreamKey("item", "msg_1")
    assert ended("response.completed", UNNAMED, output=[REASONING, CALL, MESSAGE]) == [
        Ending(reasoning, None, "completed", None, COPIES[:3]),
        Ending(message, None, "completed", None, COPIES[3:]),
    ]
    details = {"reason": "content_filter"}
    found = ended("response.incomplete", UNNAMED, incomplete_details=details, output=[MESSAGE])
    copies = tuple(copy._replace(output_position=0) for copy in COPIES[3:])
    assert found == [Ending(message, None, "incomplete", "content_filter", copies, "safety")]


def test_without_any_id_an_end_closes_nothing() -> None:
    """Ignore an end without any id."""
    assert ended("response.completed", UNNAMED, output=[]) == []
    assert ended("response.failed", UNNAMED, output=[{"type": "message"}]) == []
    assert effects(UNNAMED, type="error", code="x") == []


def test_copy_of_a_part_without_any_id_is_refused() -> None:
    """Refuse a part's copy without any id. Otherwise its producer would not learn that it is lost."""
    part = {"type": "refusal", "refusal": "no"}
    with pytest.raises(UnattributableEventError):
        effects(UNNAMED, type="response.content_part.done", part=part, output_index=0, content_index=0)


def test_copy_of_an_item_without_any_id_is_refused() -> None:
    """Refuse an item's copy without any id."""
    item = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    with pytest.raises(UnattributableEventError):
        effects(UNNAMED, type="response.output_item.done", output_index=0, item=item)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"type": "response.completed", "response": {"output": [MESSAGE | {"id": "msg_other"}]}}, None),
        (
            {"type": "response.output_item.done", "output_index": 2, "item": MESSAGE | {"id": "msg_other"}},
            None,
        ),
    ],
)
def test_ids_of_a_copy_do_not_matter_where_there_is_a_response_id(
    event: dict[str, Any], reason: str | None
) -> None:
    """Ignore a copy's item ids if there is a response id, since OpenRouter sends new ids."""
    found = effects(NAMED, **event)
    assert {effect.part.stream_key if isinstance(effect, Closing) else _key(effect) for effect in found} == {
        KEY
    }
    assert [effect.reason for effect in found if isinstance(effect, Ending)] == [reason]


def _key(effect: Effect) -> StreamKey:
    assert isinstance(effect, Ending)
    return effect.stream_key


def test_handler_has_no_texts_of_its_own() -> None:
    """Claim no kinds. Otherwise copies of disabled kinds would be stored."""
    assert handler.kinds == frozenset()
    assert len(handler.routes) == 19


# -------------------------------------------------------------------------------------- beginnings of parts

PART = {"type": "refusal", "refusal": "no"}
BEGINNINGS: list[tuple[dict[str, Any], Copy]] = [
    (
        {"type": "response.output_item.added", "output_index": 2, "item": {**MESSAGE, "content": [PART]}},
        Copy("msg_1", 2, 0, "refusal", "no"),
    ),
    (
        {"type": "response.content_part.added", "output_index": 2, "content_index": 1, "part": PART},
        Copy(None, 2, 1, "refusal", "no"),
    ),
    (
        {
            "type": "response.reasoning_part.added",
            "output_index": 2,
            "content_index": 1,
            "part": {"type": "reasoning_text", "text": "hm"},
        },
        Copy(None, 2, 1, "reasoning", "hm"),
    ),
    (
        {
            "type": "response.reasoning_summary_part.added",
            "output_index": 2,
            "summary_index": 1,
            "part": {"type": "summary_text", "text": "one"},
        },
        Copy(None, 2, 1, "reasoning_summary", "one"),
    ),
]


@pytest.mark.parametrize(("event", "copy"), BEGINNINGS)
def test_beginning_of_a_part_announces_its_text(event: dict[str, Any], copy: Copy) -> None:
    """Announce the text of a part's beginning."""
    assert effects(NAMED, **event) == [Announced(KEY, (copy,))]


@pytest.mark.parametrize("event_type", [event["type"] for event, _ in BEGINNINGS])
@pytest.mark.parametrize("origin", [NAMED, UNNAMED])
def test_beginning_without_a_text_is_ignored(event_type: str, origin: Origin) -> None:
    """Ignore a beginning without a text, as all servers send it."""
    assert effects(origin, type=event_type) == []
    empty = {"part": {"type": "refusal", "refusal": ""}, "item": {**MESSAGE, "id": None}}
    assert effects(origin, type=event_type, **{**empty, "item": {"type": "message"}}) == []


def test_beginning_without_any_id_is_ignored() -> None:
    """Ignore a beginning without any id. Otherwise it would make a dead letter."""
    event = {"type": "response.content_part.added", "output_index": 0, "content_index": 0, "part": PART}
    assert effects(UNNAMED, **event) == []
    assert effects(UNNAMED, **event, item_id="i" * (limits.ID + 1)) == []
    assert effects(UNNAMED, **event, item_id="it") == [
        Announced(StreamKey("item", "it"), (Copy("it", 0, 0, "refusal", "no"),))
    ]


@pytest.mark.parametrize(
    ("event_type", "index", "part", "kind"),
    [
        (
            "response.reasoning_part.done",
            "content_index",
            {"type": "reasoning_text", "text": "hm"},
            "reasoning",
        ),
        (
            "response.reasoning_summary_part.done",
            "summary_index",
            {"type": "summary_text", "text": "hm"},
            "reasoning_summary",
        ),
    ],
)
def test_end_of_a_part_of_reasoning_has_its_copy(
    event_type: str, index: str, part: dict[str, str], kind: Kind
) -> None:
    """Close a part of reasoning with its copy."""
    found = effects(NAMED, type=event_type, output_index=1, part=part, **{index: 2})
    assert found == [Closing(PartKey(KEY, 1, 2, kind), Rank.CONTENT_PART, "hm")]
