"""The events that a peer reads: the library's models, selected by `type`, and one model for all others."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Tag

from deltaloom.events import (
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    RefusalDelta,
    RefusalDone,
)
from deltaloom.messages import Kind

Delta = RefusalDelta | ReasoningTextDelta | ReasoningSummaryTextDelta
Done = RefusalDone | ReasoningTextDone | ReasoningSummaryTextDone

KINDS: dict[str, Kind] = {
    "response.refusal": "refusal",
    "response.reasoning_text": "reasoning",
    "response.reasoning_summary_text": "reasoning_summary",
}
TYPES = {f"{family}.{what}" for family in KINDS for what in ("delta", "done")}


class Other(BaseModel):
    """An event that a peer ignores."""

    model_config = ConfigDict(extra="ignore")

    type: str


def _tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else value.type
    return kind if kind in TYPES else "other"


Event = Annotated[
    Annotated[RefusalDelta, Tag("response.refusal.delta")]
    | Annotated[RefusalDone, Tag("response.refusal.done")]
    | Annotated[ReasoningTextDelta, Tag("response.reasoning_text.delta")]
    | Annotated[ReasoningTextDone, Tag("response.reasoning_text.done")]
    | Annotated[ReasoningSummaryTextDelta, Tag("response.reasoning_summary_text.delta")]
    | Annotated[ReasoningSummaryTextDone, Tag("response.reasoning_summary_text.done")]
    | Annotated[Other, Tag("other")],
    Discriminator(_tag),
]


def place_of(event: Delta | Done) -> tuple[Kind, int, int]:
    """Return kind, output index and content index of an event."""
    kind = KINDS[event.type.rpartition(".")[0]]
    index = (
        event.summary_index
        if isinstance(event, ReasoningSummaryTextDelta | ReasoningSummaryTextDone)
        else event.content_index
    )
    return kind, event.output_index, index
