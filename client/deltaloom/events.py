"""The streaming events that deltaloom reads, as the OpenAI Responses API defines them.

Fields, names and literals follow the API reference ("Streaming events"). Unknown extra fields are
allowed and ignored: servers add their own (`obfuscation`, `logprobs`, `copilot_usage`).
`sequence_number` and `item_id` may be missing, because they are on real servers.
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
"""A position in the response's output, or in an item's content."""

SequenceNumber = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""Any 64-bit integer: servers number from 0 or 1, with gaps, or all alike."""

Id = Annotated[str, Field(min_length=1)]
"""An id of any length: `deltaloom.limits` says which are too long to keep."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
"""A SHA-256 digest in hexadecimal."""

Count = Annotated[int, Field(ge=0, lt=2**63)]


class Event(BaseModel):
    """What every event has."""

    model_config = ConfigDict(frozen=True, extra="ignore")

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
    """The fields that every `.done` may have beside its text, or in place of it.

    A producer that cannot send a long text again sends `text_sha256`, of its UTF-8, and `text_bytes`.
    A `.done` with neither closes its part, and does not say what the text is.
    """

    text_sha256: Sha256 | None = None
    text_bytes: Count | None = None
    integrity_source: str | None = None
    """`producer`, if the producer wrote this event itself because its provider sends none."""


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
    """A piece of a full copy. Only what holds text is read; the rest may be anything."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RefusalPart(Copied):
    """A refusal in a message's content."""

    type: Literal["refusal"]
    refusal: str | None = None


class TextPart(Copied):
    """A text in a message's content, in a reasoning item's content, or in its summary."""

    type: Literal["output_text", "reasoning_text", "summary_text"]
    text: str | None = None


class OtherPart(Copied):
    """A part without a text of ours (annotations, audio, a vendor's own)."""


class MessageItem(Copied):
    """An output item with the answer, or the refusal of one."""

    type: Literal["message"]
    id: Id | None = None
    content: Parts | None = None


class ReasoningItem(Copied):
    """An output item with what the model thought, in the open or summarised."""

    type: Literal["reasoning"]
    id: Id | None = None
    content: Parts | None = None
    summary: Parts | None = None


class OtherItem(Copied):
    """An output item without a text of ours (a tool call, a vendor's own)."""


TAG = "#"
"""The first character of what pydantic's errors name the members of a union by; no field begins with it."""

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
    """An event with a content part."""

    @property
    def index(self) -> int:
        """The part's position in its item."""
        return self.content_index


class SummaryPart(SummaryEvent):
    """An event with a part of a reasoning summary."""

    @property
    def index(self) -> int:
        """The part's position in its summary."""
        return self.summary_index


class ContentPartAdded(ContentPart):
    """A content part begins. As a rule it is empty."""

    type: Literal["response.content_part.added"]
    output_index: Index = 0
    content_index: Index = 0
    part: Part | None = None


class ReasoningPartAdded(ContentPart):
    """A part of the reasoning begins, as vLLM says it."""

    type: Literal["response.reasoning_part.added"]
    output_index: Index = 0
    content_index: Index = 0
    part: Part | None = None


class ReasoningSummaryPartAdded(SummaryPart):
    """A part of a reasoning summary begins."""

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
    """An output item begins. As a rule it is empty."""

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
"""An error's code; some gateways send the HTTP status as a number."""


class ReasonDetail(Copied):
    """The fields that a producer may add to a reason: its class, and the provider's own words."""

    reason_class: str | None = None
    """A class of `deltaloom.reasons`; without it, the table there decides."""
    provider_category: str | None = Field(  # type: ignore[pydantic-alias]
        default=None, validation_alias=AliasChoices("provider_category", "category")
    )
    provider_explanation: str | None = Field(  # type: ignore[pydantic-alias]
        default=None, validation_alias=AliasChoices("provider_explanation", "explanation")
    )


def _string_is(field: str) -> BeforeValidator:
    """Read a string in place of an object as one field of that object."""
    return BeforeValidator(lambda value: {field: value} if isinstance(value, str) else value)


class ErrorCodes(Copied):
    """What names an error."""

    code: ErrorCode | None = None
    type: str | None = None


class ErrorCause(ErrorCodes):
    """What a gateway quotes of the error of the server behind it."""

    innererror: Annotated[ErrorCodes, _string_is("code")] | None = None
    error: Annotated[ErrorCodes, _string_is("code")] | None = None


Cause = Annotated[ErrorCause, _string_is("code")]


class ErrorDetail(ReasonDetail, ErrorCause):
    """Why a response failed."""

    message: str | None = None
    innererror: Cause | None = None
    """As Azure sends it."""
    error: Cause | None = None
    provider_specific_fields: ErrorCause | None = None
    """As LiteLLM sends it."""


class IncompleteDetail(ReasonDetail):
    """Why a response ended early."""

    reason: str | None = None


Error = Annotated[ErrorDetail, _string_is("message")]
"""Some gateways send the message alone."""

Incomplete = Annotated[IncompleteDetail, _string_is("reason")]
"""Some gateways send the reason alone."""


class ResponseSnapshot(Copied):
    """The response as it stood when the event was sent."""

    id: Id | None = None
    status: str | None = None
    model: str | None = None
    safety_identifier: str | None = None
    error: Error | None = None
    incomplete_details: Incomplete | None = None
    output: Annotated[list[Item], Field(max_length=ITEMS)] | None = None


class ResponseEvent(Event):
    """An event with the response as it stands."""

    response: ResponseSnapshot = ResponseSnapshot()


class ResponseCreated(ResponseEvent):
    """A response began. Only what it says of model and user is read."""

    type: Literal["response.created"]


class ResponseQueued(ResponseEvent):
    """A response waits. Only what it says of model and user is read."""

    type: Literal["response.queued"]


class ResponseInProgress(ResponseEvent):
    """A response goes on. Only what it says of model and user is read."""

    type: Literal["response.in_progress"]


class ResponseEnded(ResponseEvent):
    """The fields of every event that ends a response."""

    error: Error | None = None
    """As some servers send it, beside the response and not in it."""


class ResponseCompleted(ResponseEnded):
    """A response ended: as it should, unless its `status` says otherwise."""

    type: Literal["response.completed"]


class ResponseDone(ResponseEnded):
    """A response ended, as its `status` says; some servers call every end so."""

    type: Literal["response.done"]


class ResponseIncomplete(ResponseEnded):
    """A response ended early: out of tokens, or filtered."""

    type: Literal["response.incomplete"]


class ResponseFailed(ResponseEnded):
    """A response failed."""

    type: Literal["response.failed"]


class ResponseCancelled(ResponseEnded):
    """The end of a response that somebody cancelled: the client left, or asked for it."""

    type: Literal["response.cancelled"]


class ResponseCanceled(ResponseEnded):
    """The same, in another spelling."""

    type: Literal["response.canceled"]


class PartRedacted(PartEvent):
    """A part that exists, but the provider does not give out its text."""

    type: Literal["deltaloom.part.redacted"]
    kind: str


class ProducerLoss(Event):
    """A producer's report that it dropped events of a response, so its texts may lack pieces."""

    type: Literal["deltaloom.producer.loss"]
    response_id: Id | None = None
    dropped: Count | None = None
    """How many events; null if the producer does not know."""


class StreamFailure(Event):
    """The fields of an error; flat as the API documents it, or nested under `error` as servers send it."""

    code: ErrorCode | None = None
    message: str | None = None
    innererror: Cause | None = None
    error: Error | None = None


class ErrorEvent(StreamFailure):
    """The stream failed. An object with an `error` and without a `type` is read as this event."""

    type: Literal["error"]


class ResponseErrorEvent(StreamFailure):
    """The same, as some servers call it."""

    type: Literal["response.error"]
