"""Compare the event models with the classes of the installed `openai` package: fields and literals.

The package is a test dependency only. Producers in Python use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest
from openai.types import responses as openai
from openai.types.responses.response import IncompleteDetails
from pydantic import BaseModel

from deltaloom import events as ours
from handlers import BUILT_IN
from tests.client.test_events import BEGINNINGS, GOOD, TEXTS
from tests.service.pipeline.model import batch_of
from tests.strategies import entry_of

if TYPE_CHECKING:
    from collections.abc import Iterator

from handlers.core.identity import EntryId
from handlers.core.routing import RoutingTable

EVENTS: dict[type[ours.Event], type[BaseModel]] = {
    ours.RefusalDelta: openai.ResponseRefusalDeltaEvent,
    ours.RefusalDone: openai.ResponseRefusalDoneEvent,
    ours.ReasoningTextDelta: openai.ResponseReasoningTextDeltaEvent,
    ours.ReasoningTextDone: openai.ResponseReasoningTextDoneEvent,
    ours.ReasoningSummaryTextDelta: openai.ResponseReasoningSummaryTextDeltaEvent,
    ours.ReasoningSummaryTextDone: openai.ResponseReasoningSummaryTextDoneEvent,
    ours.OutputTextDelta: openai.ResponseTextDeltaEvent,
    ours.OutputTextDone: openai.ResponseTextDoneEvent,
    ours.OutputItemAdded: openai.ResponseOutputItemAddedEvent,
    ours.ContentPartAdded: openai.ResponseContentPartAddedEvent,
    ours.ReasoningSummaryPartAdded: openai.ResponseReasoningSummaryPartAddedEvent,
    ours.ReasoningSummaryPartDone: openai.ResponseReasoningSummaryPartDoneEvent,
    ours.ContentPartDone: openai.ResponseContentPartDoneEvent,
    ours.OutputItemDone: openai.ResponseOutputItemDoneEvent,
    ours.ResponseCreated: openai.ResponseCreatedEvent,
    ours.ResponseQueued: openai.ResponseQueuedEvent,
    ours.ResponseInProgress: openai.ResponseInProgressEvent,
    ours.ResponseCompleted: openai.ResponseCompletedEvent,
    ours.ResponseIncomplete: openai.ResponseIncompleteEvent,
    ours.ResponseFailed: openai.ResponseFailedEvent,
    ours.ErrorEvent: openai.ResponseErrorEvent,
}

PIECES: list[tuple[type[BaseModel], type[BaseModel]]] = [
    (ours.RefusalPart, openai.ResponseOutputRefusal),
    (ours.TextPart, openai.ResponseOutputText),
    (ours.MessageItem, openai.ResponseOutputMessage),
    (ours.ReasoningItem, openai.ResponseReasoningItem),
    (ours.ResponseSnapshot, openai.Response),
    (ours.ErrorDetail, openai.ResponseError),
    (ours.IncompleteDetail, IncompleteDetails),
]

OUR_OWN: set[type[ours.Event]] = {
    ours.ReasoningPartAdded,
    ours.ReasoningPartDone,
    ours.ResponseCancelled,
    ours.ResponseCanceled,
    ours.ResponseDone,
    ours.ResponseErrorEvent,
    ours.PartRedacted,
    ours.ProducerLoss,
    ours.ResponseFallback,
}
"""Events that the API does not have: producers or other servers write them."""

NOT_IN_THE_REFERENCE = {
    (ours.ErrorEvent, "error"),
    (ours.ErrorEvent, "innererror"),
    *((own, "error") for own in (ours.ResponseCompleted, ours.ResponseIncomplete, ours.ResponseFailed)),
    *((ours.ErrorDetail, name) for name in ("error", "innererror", "provider_specific_fields")),
    *((own, name) for own in TEXTS for name in ours.TextDone.model_fields),
    *(
        (own, name)
        for own in (ours.ErrorDetail, ours.IncompleteDetail)
        for name in ours.ReasonDetail.model_fields
    ),
}
"""Fields that the API does not have.

Servers put errors at other places, and producers add fields to a `.done` and to a reason.
"""


def _literals(model: type[BaseModel]) -> set[str]:
    return set(get_args(model.model_fields["type"].annotation))


def test_every_event_model_is_compared() -> None:
    """Compare each event model with the API's."""
    assert set(EVENTS) == set(GOOD) - OUR_OWN


@pytest.mark.parametrize("own", sorted(OUR_OWN, key=str))
def test_own_types_are_not_in_the_api(own: type[ours.Event]) -> None:
    """Use types for deltaloom's own events that the API does not have."""
    assert not _literals(own) & {event["type"] for event in _their_events()}


@pytest.mark.parametrize(("own", "theirs"), [*EVENTS.items(), *PIECES])
def test_fields_are_in_the_api(own: type[BaseModel], theirs: type[BaseModel]) -> None:
    """Read only fields that the API has."""
    read = {name for name in own.model_fields if (own, name) not in NOT_IN_THE_REFERENCE}
    assert read <= set(theirs.model_fields)


@pytest.mark.parametrize(("own", "theirs"), EVENTS.items())
def test_event_types_are_in_the_api(own: type[BaseModel], theirs: type[BaseModel]) -> None:
    """Use the API's type literals for events."""
    assert _literals(own) == _literals(theirs)


def test_part_and_item_types_are_in_the_api() -> None:
    """Use the API's type literals for parts and items."""
    assert _literals(ours.RefusalPart) == _literals(openai.ResponseOutputRefusal)
    assert _literals(ours.MessageItem) == _literals(openai.ResponseOutputMessage)
    assert _literals(ours.ReasoningItem) == _literals(openai.ResponseReasoningItem)
    reasoning = openai.response_reasoning_item
    assert _literals(ours.TextPart) == (
        _literals(openai.ResponseOutputText) | _literals(reasoning.Content) | _literals(reasoning.Summary)
    )


def _their_events() -> Iterator[dict[str, Any]]:
    """Yield a minimal event of each type that the package knows."""
    for theirs in get_args(get_args(openai.ResponseStreamEvent)[0]):
        yield {"type": next(iter(_literals(theirs)))}


def test_every_type_of_the_api_is_handled_or_counted() -> None:
    """Handle or count each event type of the API. Otherwise unhandled ones would be dead letters."""
    table = RoutingTable(BUILT_IN.values())
    entries = [
        entry_of([event], EntryId(1, number), "resp_1") for number, event in enumerate(_their_events())
    ]
    commit = batch_of(entries, table).commit
    known = {next(iter(_literals(own))) for own in EVENTS}
    types = {event["type"] for event in _their_events()}
    assert known <= types
    beginnings = {next(iter(_literals(own))) for own in EVENTS if own in BEGINNINGS}
    tell_nothing = {"response.queued", "response.in_progress", *beginnings}  # these events are empty here
    assert set(commit.counts) == {f"type:{name}" for name in types - known | tell_nothing}


def test_new_delta_types_of_the_api_are_noticed() -> None:
    """Fail on a new delta type of the API, which may be a text that a handler should rebuild."""
    known = {next(iter(_literals(own))) for own in EVENTS}
    others = {event["type"] for event in _their_events() if event["type"].endswith(".delta")} - known
    assert others == {
        "response.audio.delta",
        "response.audio.transcript.delta",
        "response.code_interpreter_call_code.delta",
        "response.custom_tool_call_input.delta",
        "response.function_call_arguments.delta",
        "response.mcp_call_arguments.delta",
        "response.shell_call_command.delta",
        "response.shell_call_output_content.delta",
    }


# -------------------------------------------------------------------------------------- events of the package


_REFUSAL = openai.ResponseOutputRefusal(type="refusal", refusal="I'm sorry")
_TEXT = openai.ResponseOutputText(type="output_text", text="well", annotations=[])
_MESSAGE = openai.ResponseOutputMessage(
    id="msg_1", type="message", role="assistant", status="completed", content=[_TEXT, _REFUSAL]
)
_REASONING = openai.ResponseReasoningItem(
    id="rs_1",
    type="reasoning",
    summary=[openai.response_reasoning_item.Summary(type="summary_text", text="one")],
    content=[openai.response_reasoning_item.Content(type="reasoning_text", text="hm")],
)
_CALL = openai.ResponseFunctionToolCall(
    type="function_call", call_id="call_1", name="f", arguments="{}", status="completed"
)


def _response(**fields: Any) -> openai.Response:
    return openai.Response(
        id="resp_1",
        created_at=1,
        model="m-1",
        object="response",
        output=[_REASONING, _CALL, _MESSAGE],
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
        safety_identifier="u-1",
        **fields,
    )


_PLACE: dict[str, Any] = {"item_id": "msg_1", "output_index": 2, "content_index": 1, "sequence_number": 9}
_SUMMARY_PLACE: dict[str, Any] = {
    "item_id": "rs_1",
    "output_index": 0,
    "summary_index": 0,
    "sequence_number": 9,
}
_SUMMARY_PART: Any = {"type": "summary_text", "text": "one"}
_FAILURE = openai.ResponseError(code="server_error", message="no")

THEIRS: dict[type[ours.Event], BaseModel] = {
    ours.RefusalDelta: openai.ResponseRefusalDeltaEvent(type="response.refusal.delta", delta="I'm", **_PLACE),
    ours.RefusalDone: openai.ResponseRefusalDoneEvent(type="response.refusal.done", refusal="I'm", **_PLACE),
    ours.ReasoningTextDelta: openai.ResponseReasoningTextDeltaEvent(
        type="response.reasoning_text.delta", delta="h", **_PLACE
    ),
    ours.ReasoningTextDone: openai.ResponseReasoningTextDoneEvent(
        type="response.reasoning_text.done", text="hm", **_PLACE
    ),
    ours.ReasoningSummaryTextDelta: openai.ResponseReasoningSummaryTextDeltaEvent(
        type="response.reasoning_summary_text.delta", delta="o", **_SUMMARY_PLACE
    ),
    ours.ReasoningSummaryTextDone: openai.ResponseReasoningSummaryTextDoneEvent(
        type="response.reasoning_summary_text.done", text="one", **_SUMMARY_PLACE
    ),
    ours.OutputTextDelta: openai.ResponseTextDeltaEvent(
        type="response.output_text.delta", delta="w", logprobs=[], **_PLACE
    ),
    ours.OutputTextDone: openai.ResponseTextDoneEvent(
        type="response.output_text.done", text="well", logprobs=[], **_PLACE
    ),
    ours.OutputItemAdded: openai.ResponseOutputItemAddedEvent(
        type="response.output_item.added", item=_MESSAGE, output_index=2, sequence_number=9
    ),
    ours.ContentPartAdded: openai.ResponseContentPartAddedEvent(
        type="response.content_part.added", part=_REFUSAL, **_PLACE
    ),
    ours.ReasoningSummaryPartAdded: openai.ResponseReasoningSummaryPartAddedEvent(
        type="response.reasoning_summary_part.added",
        part=_SUMMARY_PART,
        **_SUMMARY_PLACE,
    ),
    ours.ReasoningSummaryPartDone: openai.ResponseReasoningSummaryPartDoneEvent(
        type="response.reasoning_summary_part.done",
        part=_SUMMARY_PART,
        **_SUMMARY_PLACE,
    ),
    ours.ContentPartDone: openai.ResponseContentPartDoneEvent(
        type="response.content_part.done", part=_REFUSAL, **_PLACE
    ),
    ours.OutputItemDone: openai.ResponseOutputItemDoneEvent(
        type="response.output_item.done", item=_MESSAGE, output_index=2, sequence_number=9
    ),
    ours.ResponseCreated: openai.ResponseCreatedEvent(
        type="response.created", response=_response(), sequence_number=0
    ),
    ours.ResponseQueued: openai.ResponseQueuedEvent(
        type="response.queued", response=_response(), sequence_number=1
    ),
    ours.ResponseInProgress: openai.ResponseInProgressEvent(
        type="response.in_progress", response=_response(), sequence_number=2
    ),
    ours.ResponseCompleted: openai.ResponseCompletedEvent(
        type="response.completed", response=_response(), sequence_number=9
    ),
    ours.ResponseIncomplete: openai.ResponseIncompleteEvent(
        type="response.incomplete",
        response=_response(incomplete_details=IncompleteDetails(reason="content_filter")),
        sequence_number=9,
    ),
    ours.ResponseFailed: openai.ResponseFailedEvent(
        type="response.failed", response=_response(error=_FAILURE), sequence_number=9
    ),
    ours.ErrorEvent: openai.ResponseErrorEvent(type="error", code="x", message="y", sequence_number=9),
}


def _only_what_we_read(value: Any, model: BaseModel) -> Any:
    """Return the values of their JSON for which our model has fields."""
    read = {}
    for name in type(model).model_fields:
        ours_value, theirs = getattr(model, name), value.get(name)
        if isinstance(ours_value, BaseModel):
            theirs = _only_what_we_read(theirs, ours_value)
        elif isinstance(ours_value, list):
            theirs = [_only_what_we_read(each, piece) for each, piece in zip(theirs, ours_value, strict=True)]
        read[name] = theirs
    return read


@pytest.mark.parametrize("own", EVENTS)
def test_events_of_the_package_are_accepted(own: type[ours.Event]) -> None:
    """Accept `event.model_dump_json()` without loss."""
    theirs = THEIRS[own].model_dump(mode="json")
    event = own.model_validate(theirs, strict=True)
    assert event.model_dump() == _only_what_we_read(theirs, event)


@pytest.mark.parametrize("own", EVENTS)
def test_events_without_unset_fields_are_accepted(own: type[ours.Event]) -> None:
    """Accept `event.to_json()`, which omits unset fields."""
    own.model_validate(THEIRS[own].model_dump(mode="json", exclude_unset=True), strict=True)


def test_snapshot_has_model_user_and_texts() -> None:
    """Read the model, the user and the texts of a snapshot."""
    event = ours.ResponseCompleted.model_validate(THEIRS[ours.ResponseCompleted].model_dump(mode="json"))
    assert (event.response.model, event.response.safety_identifier) == ("m-1", "u-1")
    reasoning, call, message = event.response.output or []
    assert isinstance(reasoning, ours.ReasoningItem)
    assert isinstance(call, ours.OtherItem)
    assert isinstance(message, ours.MessageItem)
    assert [type(part) for part in message.content or []] == [ours.TextPart, ours.RefusalPart]
