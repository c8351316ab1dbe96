"""Models of the streaming events that deltaloom reads, as the OpenAI Responses API defines them.

Fields, names and literals follow the API reference ("Streaming events"). Unknown fields are ignored, since
servers add their own (`obfuscation`, `logprobs`, `copilot_usage`). `sequence_number` and `item_id` may be
missing, because some real servers leave them out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)

from deltaloom.limits import ITEMS

Index = Annotated[int, Field(ge=0, lt=2**31)]
"""Position in the response's output, or in an item's content or summary, from 0."""

SequenceNumber = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""Signed 64-bit integer: servers number events from 0 or 1, with gaps, or give all the same number."""

Id = Annotated[str, Field(min_length=1)]
"""Id of any length; `deltaloom.limits` has the maximum length that is kept."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
"""SHA-256 digest in hexadecimal."""

Count = Annotated[int, Field(ge=0, lt=2**63)]


class Event(BaseModel):
    """The fields of every event."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    sequence_number: SequenceNumber | None = None


class PartEvent(Event):
    """An event about one content part of one output item."""

    item_id: Id | None = None
    output_index: Index
    content_index: Index


class SummaryEvent(Event):
    """An event about one part of a reasoning summary."""

    item_id: Id | None = None
    output_index: Index
    summary_index: Index


class TextDone(BaseModel):
    """Fields that every `.done` may have next to its text, or in place of it.

    A producer that cannot repeat a long text sends the SHA-256 (`text_sha256`) and the size (`text_bytes`) of
    its UTF-8. A `.done` with neither text nor checksum closes its part without giving the text.
    """

    model_config = ConfigDict(defer_build=True)

    text_sha256: Sha256 | None = None
    text_bytes: Count | None = None
    integrity_source: str | None = None
    """`producer` if the producer wrote this event itself, because its provider does not send one."""


class RefusalDelta(PartEvent):
    """A fragment of refusal text."""

    type: Literal["response.refusal.delta"]
    delta: str


class RefusalDone(TextDone, PartEvent):
    """The whole refusal text."""

    type: Literal["response.refusal.done"]
    refusal: str | None = None


class ReasoningTextDelta(PartEvent):
    """A fragment of reasoning text."""

    type: Literal["response.reasoning_text.delta"]
    delta: str


class ReasoningTextDone(TextDone, PartEvent):
    """The whole reasoning text."""

    type: Literal["response.reasoning_text.done"]
    text: str | None = None


class ReasoningSummaryTextDelta(SummaryEvent):
    """A fragment of a reasoning summary."""

    type: Literal["response.reasoning_summary_text.delta"]
    delta: str


class ReasoningSummaryTextDone(TextDone, SummaryEvent):
    """The whole text of one part of a reasoning summary."""

    type: Literal["response.reasoning_summary_text.done"]
    text: str | None = None


class OutputTextDelta(PartEvent):
    """A fragment of the answer."""

    type: Literal["response.output_text.delta"]
    delta: str


class OutputTextDone(TextDone, PartEvent):
    """The whole text of one part of the answer."""

    type: Literal["response.output_text.done"]
    text: str | None = None


class Copied(BaseModel):
    """An object in a full copy. Only the fields that hold text are validated."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class RefusalPart(Copied):
    """A refusal in a message's content."""

    type: Literal["refusal"]
    refusal: str | None = None


class TextPart(Copied):
    """A text in a message's content, in a reasoning item's content, or in its summary."""

    type: Literal["output_text", "reasoning_text", "summary_text"]
    text: str | None = None


class OtherPart(Copied):
    """A part of any other type (audio, a vendor's own): it has no text that deltaloom reads."""


class MessageItem(Copied):
    """An output item with an answer or a refusal."""

    type: Literal["message"]
    id: Id | None = None
    content: Parts | None = None


class ReasoningItem(Copied):
    """An output item with reasoning: the full text, a summary, or both."""

    type: Literal["reasoning"]
    id: Id | None = None
    content: Parts | None = None
    summary: Parts | None = None


class OtherItem(Copied):
    """An output item of any other type (a tool call, a vendor's own): it has no text that deltaloom reads."""


TAG = "#"
"""First character of the union tags in the paths of pydantic's errors. No field begins with it."""

_TAGS = {
    "refusal": "refusal",
    "output_text": "text",
    "reasoning_text": "text",
    "summary_text": "text",
    "message": "message",
    "reasoning": "reasoning",
}


def _tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return TAG + (_TAGS.get(kind, "other") if isinstance(kind, str) else "other")


Part = Annotated[
    Annotated[RefusalPart, Tag(f"{TAG}refusal")]
    | Annotated[TextPart, Tag(f"{TAG}text")]
    | Annotated[OtherPart, Tag(f"{TAG}other")],
    Discriminator(_tag),
]

Parts = Annotated[list[Part], Field(max_length=ITEMS)]

Item = Annotated[
    Annotated[MessageItem, Tag(f"{TAG}message")]
    | Annotated[ReasoningItem, Tag(f"{TAG}reasoning")]
    | Annotated[OtherItem, Tag(f"{TAG}other")],
    Discriminator(_tag),
]


class ContentPart(PartEvent):
    """An event with a content part and its position."""

    @property
    def index(self) -> int:
        """Position of the part in its item."""
        return self.content_index


class SummaryPart(SummaryEvent):
    """An event with a part of a reasoning summary and its position."""

    @property
    def index(self) -> int:
        """Position of the part in its summary."""
        return self.summary_index


class ContentPartAdded(ContentPart):
    """The beginning of a content part. Normally the part is empty."""

    type: Literal["response.content_part.added"]
    output_index: Index = 0
    content_index: Index = 0
    part: Part | None = None


class ReasoningPartAdded(ContentPart):
    """The beginning of a part of the reasoning, as vLLM sends it."""

    type: Literal["response.reasoning_part.added"]
    output_index: Index = 0
    content_index: Index = 0
    part: Part | None = None


class ReasoningSummaryPartAdded(SummaryPart):
    """The beginning of a part of a reasoning summary."""

    type: Literal["response.reasoning_summary_part.added"]
    output_index: Index = 0
    summary_index: Index = 0
    part: Part | None = None


class ContentPartDone(ContentPart):
    """A full copy of one content part."""

    type: Literal["response.content_part.done"]
    part: Part


class ReasoningPartDone(ContentPart):
    """A full copy of one part of the reasoning, as vLLM sends it."""

    type: Literal["response.reasoning_part.done"]
    part: Part


class ReasoningSummaryPartDone(SummaryPart):
    """A full copy of one part of a reasoning summary."""

    type: Literal["response.reasoning_summary_part.done"]
    part: Part


class OutputItemAdded(Event):
    """The beginning of an output item. Normally the item is empty."""

    type: Literal["response.output_item.added"]
    output_index: Index = 0
    item: Item | None = None


class OutputItemDone(Event):
    """A full copy of one output item."""

    type: Literal["response.output_item.done"]
    output_index: Index
    item: Item


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


ErrorCode = Annotated[str, BeforeValidator(_as_text)]
"""Code of an error. A number becomes a string: some gateways send the HTTP status as a number."""


class ReasonDetail(Copied):
    """Fields that a producer may add to a reason: its class, and the provider's category and explanation."""

    reason_class: str | None = None
    """Class of the reason; if null, the table in `deltaloom.reasons` decides."""
    provider_category: str | None = Field(  # type: ignore[pydantic-alias]
        default=None, validation_alias=AliasChoices("provider_category", "category")
    )
    provider_explanation: str | None = Field(  # type: ignore[pydantic-alias]
        default=None, validation_alias=AliasChoices("provider_explanation", "explanation")
    )


def _string_is(field: str) -> BeforeValidator:
    """Return a validator that reads a string as an object with this one field."""
    return BeforeValidator(lambda value: {field: value} if isinstance(value, str) else value)


class ErrorCodes(Copied):
    """The code and type of an error."""

    code: ErrorCode | None = None
    type: str | None = None


class ErrorCause(ErrorCodes):
    """An error of an upstream server, as a gateway quotes it."""

    innererror: Annotated[ErrorCodes, _string_is("code")] | None = None
    error: Annotated[ErrorCodes, _string_is("code")] | None = None


Cause = Annotated[ErrorCause, _string_is("code")]


class ErrorDetail(ReasonDetail, ErrorCause):
    """The error of a failed response."""

    message: str | None = None
    innererror: Cause | None = None
    """Cause, as Azure sends it."""
    error: Cause | None = None
    provider_specific_fields: ErrorCause | None = None
    """Cause, as LiteLLM sends it."""


class IncompleteDetail(ReasonDetail):
    """The reason of an incomplete response."""

    reason: str | None = None


Error = Annotated[ErrorDetail, _string_is("message")]
"""Error of a response. Some gateways send only the message, as a string."""

Incomplete = Annotated[IncompleteDetail, _string_is("reason")]
"""Reason of an incomplete response. Some gateways send only the reason, as a string."""


class ResponseSnapshot(Copied):
    """A snapshot of the response at the time of the event."""

    id: Id | None = None
    status: str | None = None
    model: str | None = None
    safety_identifier: str | None = None
    error: Error | None = None
    incomplete_details: Incomplete | None = None
    output: Annotated[list[Item], Field(max_length=ITEMS)] | None = None


class ResponseEvent(Event):
    """An event with a snapshot of its response."""

    response: ResponseSnapshot = ResponseSnapshot()


class ResponseCreated(ResponseEvent):
    """The beginning of a response. Only `model` and `safety_identifier` are read."""

    type: Literal["response.created"]


class ResponseQueued(ResponseEvent):
    """A response is queued. Only `model` and `safety_identifier` are read."""

    type: Literal["response.queued"]


class ResponseInProgress(ResponseEvent):
    """A response is in progress. Only `model` and `safety_identifier` are read."""

    type: Literal["response.in_progress"]


class ResponseEnded(ResponseEvent):
    """The fields of every event that ends a response."""

    error: Error | None = None
    """Error of the response, if the server sends it next to the response instead of in it."""


class ResponseCompleted(ResponseEnded):
    """The end of a response: it completed, unless its `status` is another one."""

    type: Literal["response.completed"]


class ResponseDone(ResponseEnded):
    """The end of a response with the `status` of the response. Some servers send this event for every end."""

    type: Literal["response.done"]


class ResponseIncomplete(ResponseEnded):
    """The early end of a response: it ran out of tokens, or was filtered."""

    type: Literal["response.incomplete"]


class ResponseFailed(ResponseEnded):
    """The failure of a response."""

    type: Literal["response.failed"]


class ResponseCancelled(ResponseEnded):
    """The end of a cancelled response: the client disconnected, or requested it."""

    type: Literal["response.cancelled"]


class ResponseCanceled(ResponseEnded):
    """The end of a cancelled response, in another spelling."""

    type: Literal["response.canceled"]


class PartRedacted(PartEvent):
    """A part with a text that the provider withholds."""

    type: Literal["deltaloom.part.redacted"]
    kind: str


class ProducerLoss(Event):
    """A producer's report that it dropped events of a response: its texts may be incomplete."""

    type: Literal["deltaloom.producer.loss"]
    response_id: Id | None = None
    dropped: Count | None = None
    """Number of dropped events; null if the producer does not know it."""
    scope: str | None = None
    """`process` if the report is about responses that are not named; such a report is only counted."""


class ResponseFallback(Event):
    """A report that the provider answered with another model, because the first one refused.

    `deltaloom.dialects` writes this event: the provider's own stream may show the refusal nowhere else.
    """

    type: Literal["deltaloom.response.fallback"]
    response_id: Id | None = None
    from_model: str | None = None
    to_model: str | None = None
    trigger: str | None = None


class StreamFailure(Event):
    """The fields of an error: flat as the API documents it, or nested under `error` as servers send it."""

    code: ErrorCode | None = None
    message: str | None = None
    innererror: Cause | None = None
    error: Error | None = None


class ErrorEvent(StreamFailure):
    """The failure of a stream. An object with an `error` and without a `type` is read as this event."""

    type: Literal["error"]


class ResponseErrorEvent(StreamFailure):
    """The failure of a stream, under another name that some servers use."""

    type: Literal["response.error"]
