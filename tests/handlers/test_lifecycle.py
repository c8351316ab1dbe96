"""Full copies, and the end of a response, as one server or another sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import limits
from handlers.core.effects import (
    Announced,
    Closing,
    Context,
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
"""Where the texts of the reasoning are, in its own end."""


def effects(origin: Origin, **fields: Any) -> list[Effect]:
    """What the handler asks for, the event read as JSON would be."""
    route = next(route for route in handler.routes if route.event_type == fields["type"])
    return list(route.handle(route.model.model_validate(fields, strict=True), origin))


def ended(event_type: str, origin: Origin = NAMED, **response: Any) -> list[Effect]:
    """What an event with a response in it asks for."""
    return effects(origin, type=event_type, response=response)


def test_created_tells_of_model_and_user() -> None:
    """Texts would not say which model wrote them, or for whom."""
    learned = ended("response.created", model="m-1", safety_identifier="u-1", id="resp_other")
    assert learned == [Learned(KEY, "m-1", "u-1")]
    assert ended("response.created") == [Learned(KEY, None, None)]


def test_created_repairs_what_it_tells() -> None:
    """A half of a surrogate pair in a model's name would stop the worker."""
    assert ended("response.created", model="m\ud83d") == [Learned(KEY, "m\ufffd", None)]


def test_created_of_nobody_is_passed_over() -> None:
    """A producer that gives no response id would have a dead letter for each response."""
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
    """A server without `.done` would leave its texts open."""
    found = effects(
        NAMED, type="response.content_part.done", part=part, item_id="it_1", output_index=1, content_index=2
    )
    assert found == [Closing(PartKey(KEY, 1, 2, kind), Rank.CONTENT_PART, text, "it_1")]


def test_copy_of_a_part_that_is_not_ours_closes_nothing() -> None:
    """A vendor's own part would end a text at its place."""
    part = {"type": "output_audio", "data": "…"}
    found = effects(NAMED, type="response.content_part.done", part=part, output_index=0, content_index=0)
    assert found == []


def test_copy_of_an_item_closes_its_parts_and_the_rest() -> None:
    """A server that sends copies of items only would leave its texts open, or lose them."""
    assert effects(NAMED, type="response.output_item.done", output_index=3, item=REASONING) == [
        Closing(PartKey(KEY, 3, 0, "reasoning"), Rank.OUTPUT_ITEM, "hm", "rs_1"),
        Closing(PartKey(KEY, 3, 0, "reasoning_summary"), Rank.OUTPUT_ITEM, "one", "rs_1"),
        Closing(PartKey(KEY, 3, 1, "reasoning_summary"), Rank.OUTPUT_ITEM, "two", "rs_1"),
        Ending(KEY, 3, "completed", copies=tuple(place._replace(position=3) for place in PLACES)),
    ]


def test_index_in_an_item_counts_every_part() -> None:
    """A refusal that follows an answer would be taken for another one."""
    found = effects(NAMED, type="response.output_item.done", output_index=0, item=MESSAGE)
    assert [effect.part.content_index for effect in found if isinstance(effect, Closing)] == [0, 1]


@pytest.mark.parametrize("content", [None, [], [{"type": "refusal", "refusal": ""}]])
def test_item_without_texts_only_ends(content: Any) -> None:
    """An empty copy would replace what the deltas say."""
    item = {"type": "message", "id": "msg_1", "content": content}
    found = effects(NAMED, type="response.output_item.done", output_index=0, item=item)
    assert found == [Ending(KEY, 0, "completed")]


def test_item_of_another_type_ends_its_place() -> None:
    """Its index could not be told from that of a text which is still open."""
    found = effects(NAMED, type="response.output_item.done", output_index=1, item=CALL)
    assert found == [Ending(KEY, 1, "completed")]


def test_without_a_response_id_an_item_ends_itself() -> None:
    """The texts of a producer that gives no response id would wait for the idle timeout."""
    key = StreamKey("item", "rs_1")
    found = effects(UNNAMED, type="response.output_item.done", output_index=0, item=REASONING)
    assert found[-1] == Ending(key, None, "completed", copies=PLACES)
    assert all(effect.part.stream_key == key for effect in found if isinstance(effect, Closing))


def test_without_a_response_id_a_tool_call_is_nobodys() -> None:
    """Every tool call would be a dead letter."""
    assert effects(UNNAMED, type="response.output_item.done", output_index=0, item=CALL) == []


def test_completed_has_the_final_copy() -> None:
    """A text that only the final copy has would be lost; an item's position would be another's."""
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
    """Otherwise the text of a response that was cut off would be lost, or be cut shorter."""
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
def test_response_ends_as_its_status_says(
    event_type: str, response: dict[str, Any], status: str, reason: str | None, reason_class: str
) -> None:
    """Otherwise a response that a filter stopped would look complete, and raise no alert."""
    expected = "cancelled" if status == "canceled" else status.casefold()
    assert ended(event_type, status=status, **response) == [
        Ending(KEY, None, expected, reason, (), reason_class)
    ]


@pytest.mark.parametrize("status", [None, "completed", "in_progress", "new"])
def test_response_of_another_status_is_completed(status: str | None) -> None:
    """Otherwise the end of a response whose status nobody knows would be lost."""
    assert ended("response.completed", status=status) == [Ending(KEY, None, "completed")]


@pytest.mark.parametrize("event_type", ["response.incomplete", "response.failed"])
def test_type_of_an_end_goes_before_its_status(event_type: str) -> None:
    """Otherwise an end would turn into another one where a server does not keep its status."""
    ending = only_ending(ended(event_type, status="completed"))
    assert ending.status == event_type.removeprefix("response.")


@pytest.mark.parametrize("event_type", ["error", "response.error"])
def test_error_of_either_name_ends_the_response(event_type: str) -> None:
    """Otherwise a response would stay open because its server has a name of its own for errors."""
    assert only_ending(effects(NAMED, type=event_type, code="server_error")).status == "failed"


def test_error_beside_the_response_says_why_it_failed() -> None:
    """Otherwise nobody would learn why a policy stopped the response."""
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
    """Otherwise a gateway that puts the HTTP status first would hide that a policy stopped the response."""
    assert only_ending(ended("response.failed", error=error)).reason == reason
    assert only_ending(effects(NAMED, type="error", error=error)).reason == reason
    if isinstance(error, dict) and not {"type", "error", "provider_specific_fields"} & error.keys():
        assert only_ending(effects(NAMED, type="error", **error)).reason == reason


def test_incomplete_response_may_say_why_in_its_error() -> None:
    """Otherwise a filter that a server names in the other place would raise no alert."""
    details = {"reason": "other"}
    ending = only_ending(
        ended("response.incomplete", incomplete_details=details, error={"code": "content_filter"})
    )
    assert (ending.reason, ending.reason_class) == ("content_filter", "safety")


@pytest.mark.parametrize(
    "event_type", ["response.queued", "response.in_progress", "response.completed", "response.failed"]
)
def test_any_response_tells_of_model_and_user(event_type: str) -> None:
    """Otherwise a text whose `response.created` was missed would not say which model wrote it."""
    learned, *rest = ended(event_type, model="m-1", safety_identifier="u-1")
    assert learned == Learned(KEY, "m-1", "u-1")
    assert rest == [] or isinstance(rest[0], Ending)
    assert not any(isinstance(effect, Learned) for effect in ended(event_type))
    assert not any(isinstance(effect, Learned) for effect in ended(event_type, UNNAMED, model="m-1"))


@pytest.mark.parametrize("output", [[], None])
def test_empty_final_copy_says_nothing(output: Any) -> None:
    """`output: []` would erase what the deltas said."""
    assert ended("response.completed", output=output) == [Ending(KEY, None, "completed")]


def test_empty_text_in_the_final_copy_is_kept() -> None:
    """Its item's id tells which part is empty; without it the part would get its neighbour's text."""
    output = [{"type": "message", "id": "it", "content": [{"type": "refusal", "refusal": ""}]}]
    copies = (Copy("it", 0, 0, "refusal", ""),)
    assert ended("response.completed", output=output) == [Ending(KEY, None, "completed", None, copies)]


def test_incomplete_says_why() -> None:
    """A text that was cut off would look complete, or not say why it is not."""
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
def test_failed_says_why(error: Any, reason: str | None, reason_class: str) -> None:
    """Otherwise a text that failed would not say why."""
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
    """Otherwise a response that failed would stay open until the idle timeout."""
    assert effects(NAMED, type="error", **event) == [Ending(KEY, None, "failed", reason, (), reason_class)]


# ------------------------------------------------------------------------------- the class of an end's reason


def only_ending(found: list[Effect]) -> Ending:
    """Return the one ending among the effects."""
    (ending,) = found
    assert isinstance(ending, Ending)
    return ending


@pytest.mark.parametrize("code", ["cyber_policy", "content_filter"])
@pytest.mark.parametrize("nested", [True, False])
def test_message_of_what_stopped_a_response_is_kept(code: str, *, nested: bool) -> None:
    """Otherwise nobody would learn which words made a provider stop the response."""
    error = {"code": code, "message": "asked for \ud83d"}
    event = {"error": error} if nested else error
    ending = only_ending(effects(NAMED, type="error", **event))
    assert (ending.status, ending.reason, ending.provider_explanation) == ("failed", code, "asked for \ufffd")
    assert only_ending(ended("response.failed", error=error)) == ending


@pytest.mark.parametrize("code", ["server_error", "never_heard_of", None])
def test_message_of_a_fault_is_not_kept(code: str | None) -> None:
    """Otherwise a technical message, with whatever it quotes, would go out with every text that failed."""
    error = {"code": code, "message": "no"}
    assert only_ending(ended("response.failed", error=error)).provider_explanation is None
    assert only_ending(effects(NAMED, type="error", **error)).provider_explanation is None


def test_message_of_a_refusal_is_kept() -> None:
    """Otherwise a response that was refused without a text would not say why."""
    error = {"code": "x", "message": "declined", "reason_class": "refusal"}
    ending = only_ending(ended("response.failed", error=error))
    assert (ending.reason_class, ending.provider_explanation) == ("refusal", "declined")


def test_producer_may_say_class_category_and_words() -> None:
    """Otherwise a producer that knows better than the table could not say so."""
    details = {
        "reason": "stop\ud83d",
        "reason_class": "new\ud83d",
        "category": "c\ud83d",
        "explanation": "e\ud83d",
    }
    ending = only_ending(ended("response.incomplete", incomplete_details=details))
    repaired = ("stop\ufffd", (), "new\ufffd", "c\ufffd", "e\ufffd")
    assert ending == Ending(KEY, None, "incomplete", *repaired)


def test_explanation_goes_before_the_message() -> None:
    """Otherwise a general message would replace the provider's words about this request."""
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
    """Otherwise a provider's word would be guessed at, or be known in one way of writing it only."""
    origin = NAMED._replace(context=Context(provider=provider))
    ending = only_ending(ended("response.incomplete", origin, incomplete_details={"reason": value}))
    assert (ending.reason, ending.reason_class) == (value, reason_class)


def test_completed_has_no_class() -> None:
    """Otherwise a response that ended as it should would have a reason."""
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
def test_cancelled_says_who_left(response: dict[str, Any], reason: str) -> None:
    """Otherwise a response that somebody cancelled would look like one that failed."""
    assert ended("response.cancelled", **response) == [
        Ending(KEY, None, "cancelled", reason, (), "cancelled"),
    ]
    assert effects(NAMED, type="response.cancelled") == [
        Ending(KEY, None, "cancelled", "cancelled", (), "cancelled"),
    ]


@pytest.mark.parametrize("reason", ["cancelled", "client_disconnected"])
def test_other_ends_for_a_cancellation_are_cancelled_too(reason: str) -> None:
    """Otherwise a cancellation would count as a failure where the provider has no event of its own for it."""
    ending = Ending(KEY, None, "cancelled", reason, (), "cancelled")
    assert ended("response.incomplete", incomplete_details={"reason": reason}) == [ending]
    assert ended("response.failed", error={"code": reason}) == [ending]
    assert effects(NAMED, type="error", code=reason) == [ending]


@pytest.mark.parametrize("length", [limits.ID, limits.ID + 1])
def test_item_whose_id_is_too_long_to_keep_has_nothing_to_end(length: int) -> None:
    """Otherwise an end would make a key as long as the producer likes."""
    item = MESSAGE | {"id": "x" * length}
    keys = [_key(effect) for effect in ended("response.completed", UNNAMED, output=[item])]
    assert keys == ([StreamKey("item", "x" * length)] if length == limits.ID else [])


def test_without_a_response_id_the_final_copy_says_which_items_end() -> None:
    """The end of one response would close the texts of another, or none."""
    reasoning, message = StreamKey("item", "rs_1"), StreamKey("item", "msg_1")
    assert ended("response.completed", UNNAMED, output=[REASONING, CALL, MESSAGE]) == [
        Ending(reasoning, None, "completed", None, COPIES[:3]),
        Ending(message, None, "completed", None, COPIES[3:]),
    ]
    details = {"reason": "content_filter"}
    found = ended("response.incomplete", UNNAMED, incomplete_details=details, output=[MESSAGE])
    copies = tuple(copy._replace(position=0) for copy in COPIES[3:])
    assert found == [Ending(message, None, "incomplete", "content_filter", copies, "safety")]


def test_without_any_id_an_end_closes_nothing() -> None:
    """The end of a stranger's response would close ours."""
    assert ended("response.completed", UNNAMED, output=[]) == []
    assert ended("response.failed", UNNAMED, output=[{"type": "message"}]) == []
    assert effects(UNNAMED, type="error", code="x") == []


def test_copy_of_a_part_without_any_id_belongs_to_nothing() -> None:
    """Its producer would not learn that its texts go nowhere."""
    part = {"type": "refusal", "refusal": "no"}
    with pytest.raises(UnattributableEventError):
        effects(UNNAMED, type="response.content_part.done", part=part, output_index=0, content_index=0)


def test_copy_of_an_item_without_any_id_belongs_to_nothing() -> None:
    """The same, for an item: its text would vanish, neither handled nor counted nor a dead letter."""
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
    """A server that gives new ids in its copies (OpenRouter) would have every text twice, or open."""
    found = effects(NAMED, **event)
    assert {effect.part.stream_key if isinstance(effect, Closing) else _key(effect) for effect in found} == {
        KEY
    }
    assert [effect.reason for effect in found if isinstance(effect, Ending)] == [reason]


def _key(effect: Effect) -> StreamKey:
    assert isinstance(effect, Ending)
    return effect.stream_key


def test_handler_has_no_texts_of_its_own() -> None:
    """Copies of kinds that nobody asked for would be kept."""
    assert handler.kinds == frozenset()
    assert len(handler.routes) == 19


# ------------------------------------------------------------------------- what the beginning of a part has

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
    """A text that nothing else has would be lost."""
    assert effects(NAMED, **event) == [Announced(KEY, (copy,))]


@pytest.mark.parametrize("event_type", [event["type"] for event, _ in BEGINNINGS])
@pytest.mark.parametrize("origin", [NAMED, UNNAMED])
def test_beginning_without_a_text_says_nothing(event_type: str, origin: Origin) -> None:
    """An event that every server sends would be stored, or be a dead letter."""
    assert effects(origin, type=event_type) == []
    empty = {"part": {"type": "refusal", "refusal": ""}, "item": {**MESSAGE, "id": None}}
    assert effects(origin, type=event_type, **{**empty, "item": {"type": "message"}}) == []


def test_beginning_without_any_id_belongs_to_nothing() -> None:
    """It would be a dead letter, and was never one."""
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
    """A text that nothing else has would be lost."""
    found = effects(NAMED, type=event_type, output_index=1, part=part, **{index: 2})
    assert found == [Closing(PartKey(KEY, 1, 2, kind), Rank.CONTENT_PART, "hm")]
