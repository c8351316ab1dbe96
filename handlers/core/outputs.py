"""Build output messages from finished parts and contradictions."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from deltaloom.messages import AssembledText, Message, ModerationAlert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.core.contradictions import Contradiction
    from handlers.core.effects import ContextValues
    from handlers.core.identity import PartKey
    from handlers.core.response import FinishedPart

_LAST_MS = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000)
"""Latest time of a message, in ms since the epoch: `datetime` ends with the year 9999."""


_AnyMessage = TypeVar("_AnyMessage", bound=Message)


def built(model: type[_AnyMessage], fields: Mapping[str, Any]) -> _AnyMessage:
    """Return the message that `model.model_validate(fields)` returns, in a fraction of the time.

    Missing fields get their defaults.

    Args:
        model: the model of the message.
        fields: values by the names of their fields, not by aliases; all required fields must have one. They
            are not validated: pass only values from validated events or messages.
    """
    message = model.__new__(model)
    # As `model_construct` does it; calling that takes longer than validating.
    _set(message, "__dict__", {**_defaults_of(model), **fields})
    _set(message, "__pydantic_fields_set__", set(fields))
    _set(message, "__pydantic_extra__", None)
    _set(message, "__pydantic_private__", None)
    return message


_set = object.__setattr__


@cache
def _defaults_of(model: type[Message]) -> Mapping[str, Any]:
    """Return the default value of each field by its name, in the order of the model.

    That of a required field is `PydanticUndefined`.
    """
    return {name: field.default for name, field in model.model_fields.items()}


class ContextFields(TypedDict):
    """The context fields of every message."""

    tenant: str | None
    model: str | None
    safety_identifier: str | None
    traceparent: str | None
    provider: str | None
    upstream_provider: str | None
    dialect: str | None
    upstream_response_id: str | None
    reference: str | None
    context_truncated: tuple[str, ...]


class PartFields(ContextFields):
    """The identity and context fields of every message about a part."""

    kind: str
    response_id: str | None
    item_id: str | None
    output_index: int
    content_index: int


def context_fields(context: ContextValues) -> ContextFields:
    """Return the context fields of a message that has this context."""
    return ContextFields(
        tenant=context.tenant,
        model=context.model,
        safety_identifier=context.safety_identifier,
        traceparent=context.traceparent,
        provider=context.provider,
        upstream_provider=context.upstream_provider,
        dialect=context.dialect,
        upstream_response_id=context.upstream_response_id,
        reference=context.reference,
        context_truncated=context.truncated,
    )


def time_of(ms: int) -> datetime:
    """Convert ms since the epoch to a UTC time, at most 9999-12-31: producers may choose absurd entry ids."""
    return datetime.fromtimestamp(min(ms, _LAST_MS) / 1000, UTC)


def part_fields(part: PartKey, item_id: str | None, context: ContextValues) -> PartFields:
    """Return the fields that every message about this part has.

    `item_id` is None if no event gave one. The item id of the stream key then takes its place, if the stream
    key has one instead of a response id.
    """
    key = part.stream_key
    return PartFields(
        kind=part.kind,
        response_id=key.value if key.by == "response" else None,
        item_id=item_id if item_id is not None or key.by == "response" else key.value,
        output_index=part.output_index,
        content_index=part.content_index,
        **context_fields(context),
    )


def assembled_text(finished: FinishedPart) -> AssembledText:
    """Return the message about a finished part."""
    assembly = finished.assembly
    return built(
        AssembledText,
        {
            **part_fields(finished.part, finished.item_id, finished.context),
            "id": finished.part.digest("text"),
            "text": assembly.text,
            "status": finished.status,
            "reason": finished.reason,
            "reason_class": finished.reason_class,
            "provider_category": finished.provider_category,
            "provider_explanation": finished.provider_explanation,
            "integrity": finished.integrity,
            "integrity_source": finished.integrity_source,
            "delta_count": assembly.delta_count,
            "duplicate_count": assembly.duplicate_count,
            "first_sequence_number": assembly.first_sequence_number,
            "last_sequence_number": assembly.last_sequence_number,
            "started_at": time_of(finished.started_ms),
            "finished_at": time_of(finished.finished_ms),
        },
    )


def contradiction_alert(contradiction: Contradiction) -> ModerationAlert:
    """Return the alert about a contradiction, of severity `info`.

    Its id depends on the part alone, so all contradictions of one part have the same id.
    """
    part = contradiction.part
    return built(
        ModerationAlert,
        {
            **part_fields(part, contradiction.item_id, contradiction.context),
            "type": "deltaloom.text.contradicted",
            "id": part.digest("contradicted"),
            "severity": "info",
            "text": contradiction.text,
            "raised_at": time_of(contradiction.at_ms),
        },
    )
