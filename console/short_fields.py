"""Cut the fields of a message that nobody can have meant to be long, so that a page has few bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from service.visible import shortened

if TYPE_CHECKING:
    from pydantic import BaseModel

_Message = TypeVar("_Message", bound="BaseModel")

LONGEST: Final = 4096
"""Maximum characters of a field other than prose."""

LONGEST_TEXT: Final = 32_000
"""Maximum characters of the text of an alert on a page."""

_PROSE: Final = frozenset({"text", "provider_explanation"})
"""Fields that a page cuts only after they were redacted."""


def with_short_fields(message: _Message) -> _Message:
    """Return a message whose strings other than prose are short, those of its objects too."""
    changed: dict[str, Any] = {}
    for name, value in message.__dict__.items():
        if isinstance(value, str) and name not in _PROSE:
            short: Any = shortened(value, LONGEST + 1)
        elif hasattr(value, "model_copy"):
            short = with_short_fields(value)
        else:
            continue
        if short is not value:
            changed[name] = short
    return message.model_copy(update=changed) if changed else message
