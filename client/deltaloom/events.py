"""The streaming events that deltaloom reads, as the OpenAI Responses API defines them.

Fields, names and literals follow the API reference ("Streaming events"). Unknown extra fields are
allowed and ignored: servers add their own (`obfuscation`, `logprobs`, `copilot_usage`).
`sequence_number` and `item_id` may be missing, because they are on real servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from typing import Self

Index = Annotated[int, Field(ge=0, lt=2**31)]
"""A position in the response's output, or in an item's content."""

SequenceNumber = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""Any 64-bit integer: servers number from 0 or 1, with gaps, or all alike."""

Id = Annotated[str, Field(min_length=1)]
"""An id of any length: `deltaloom.limits` says which are too long to keep."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
"""A SHA-256 digest in hexadecimal."""

Count = Annotated[int, Field(ge=0, lt=2**63)]


def _odd_is_none(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        return None


OddIsNone = WrapValidator(_odd_is_none)
"""Read a value that no effect needs as None if it is invalid, so that it never costs the event."""


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
    """

    _text_field: ClassVar[str] = "text"

    text_sha256: Annotated[Sha256 | None, OddIsNone] = None
    text_bytes: Annotated[Count | None, OddIsNone] = None
    integrity_source: Annotated[str | None, OddIsNone] = None
    """`producer`, if the producer wrote this event itself because its provider sends none."""

    @model_validator(mode="after")
    def _has_text_or_checksum(self) -> Self:
        if getattr(self, self._text_field) is None and self.text_sha256 is None:
            raise PydanticCustomError(
                "text_or_checksum",
                "give {field}, or text_sha256 with 64 hexadecimal digits",
                {"field": self._text_field},
            )
        return self


class RefusalDelta(PartEvent):
    """A fragment of refusal text."""

    type: Literal["response.refusal.delta"]
    delta: str


class RefusalDone(TextDone, PartEvent):
    """The whole refusal text."""

    type: Literal["response.refusal.done"]
    _text_field: ClassVar[str] = "refusal"
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
    refusal: str


class TextPart(Copied):
    """A text in a message's content, in a reasoning item's content, or in its summary."""

    type: Literal["output_text", "reasoning_text", "summary_text"]
    text: str


class OtherPart(Copied):
    """A part without a text of ours (annotations, audio, a vendor's own)."""


class MessageItem(Copied):
    """An output item with the answer, or the refusal of one."""

    type: Literal["message"]
    id: Id | None = None
    content: list[Part] | None = None


class ReasoningItem(Copied):
    """An output item with what the model thought, in the open or summarised."""

    type: Literal["reasoning"]
    id: Id | None = None
    content: list[Part] | None = None
    summary: list[Part] | None = None


class OtherItem(Copied):
    """An output item without a text of ours (a tool call, a vendor's own)."""


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
    return _TAGS.get(kind, "other") if isinstance(kind, str) else "other"


Part = Annotated[
    Annotated[RefusalPart, Tag("refusal")]
    | Annotated[TextPart, Tag("text")]
    | Annotated[OtherPart, Tag("other")],
    Discriminator(_tag),
]

Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[OtherItem, Tag("other")],
    Discriminator(_tag),
]


class ContentPartDone(PartEvent):
    """A full copy of one content part."""

    type: Literal["response.content_part.done"]
    part: Part


class OutputItemDone(Event):
    """A full copy of one output item."""

    type: Literal["response.output_item.done"]
    output_index: Index
    item: Item


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _null_is_empty(value: Any) -> Any:
    return {} if value is None else value


ErrorCode = Annotated[str, BeforeValidator(_as_text)]
"""An error's code; some gateways send the HTTP status as a number."""


class ReasonDetail(Copied):
    """The fields that a producer may add to a reason: its class, and the provider's own words."""

    reason_class: Annotated[str | None, OddIsNone] = None
    """A class of `deltaloom.reasons`; without it, the table there decides."""
    provider_category: Annotated[str | None, OddIsNone] = Field(  # type: ignore[pydantic-alias]
        default=None, validation_alias=AliasChoices("provider_category", "category")
    )
    provider_explanation: Annotated[str | None, OddIsNone] = Field(  # type: ignore[pydantic-alias]
        default=None, validation_alias=AliasChoices("provider_explanation", "explanation")
    )


class ErrorDetail(ReasonDetail):
    """Why a response failed."""

    code: ErrorCode | None = None
    type: str | None = None
    message: str | None = None


class IncompleteDetail(ReasonDetail):
    """Why a response ended early."""

    reason: str | None = None


class ResponseSnapshot(Copied):
    """The response as it stood when the event was sent."""

    id: Id | None = None
    model: str | None = None
    safety_identifier: str | None = None
    error: ErrorDetail | None = None
    incomplete_details: IncompleteDetail | None = None
    output: list[Item] | None = None


class ResponseCreated(Event):
    """A response began. Only what it says of model and user is read."""

    type: Literal["response.created"]
    response: ResponseSnapshot


class ResponseCompleted(Event):
    """A response ended as it should."""

    type: Literal["response.completed"]
    response: ResponseSnapshot


class ResponseIncomplete(Event):
    """A response ended early: out of tokens, or filtered."""

    type: Literal["response.incomplete"]
    response: ResponseSnapshot


class ResponseFailed(Event):
    """A response failed."""

    type: Literal["response.failed"]
    response: ResponseSnapshot


class ResponseCancelled(Event):
    """The end of a response that somebody cancelled: the client left, or asked for it."""

    type: Literal["response.cancelled"]
    response: Annotated[ResponseSnapshot, BeforeValidator(_null_is_empty)] = ResponseSnapshot()


class PartRedacted(PartEvent):
    """A part that exists, but the provider does not give out its text."""

    type: Literal["deltaloom.part.redacted"]
    kind: str


class ProducerLoss(Event):
    """A producer's report that it dropped events of a response, so its texts may lack pieces."""

    type: Literal["deltaloom.producer.loss"]
    response_id: Annotated[Id | None, OddIsNone] = None
    dropped: Annotated[Count | None, OddIsNone] = None
    """How many events; null if the producer does not know."""


class ErrorEvent(Event):
    """The stream failed; flat as the API documents it, or nested under `error` as servers send it."""

    type: Literal["error"]
    code: ErrorCode | None = None
    message: str | None = None
    error: ErrorDetail | None = None
