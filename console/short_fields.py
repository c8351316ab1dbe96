"""Cut the fields of a message that nobody can have meant to be long, so that a page has few bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from service.alerts.deciding.privacy import CUT

if TYPE_CHECKING:
    from pydantic import BaseModel

_Message = TypeVar("_Message", bound="BaseModel")

LONGEST: Final = 4096
"""Maximum characters of a field other than a text."""

LONGEST_TEXT: Final = 32_000
"""Maximum characters of the text of an alert on a page."""


def shortened(message: _Message) -> _Message:
    """Return a message whose strings other than its text are short, those of its objects too."""
    changed: dict[str, Any] = {}
    for name, value in message.__dict__.items():
        if isinstance(value, str) and len(value) > LONGEST and name != "text":
            changed[name] = value[:LONGEST] + CUT
        elif hasattr(value, "model_copy"):
            short = shortened(value)
            if short is not value:
                changed[name] = short
    return message.model_copy(update=changed) if changed else message


def beginning_of(text: str) -> str:
    """Return the beginning of an alert's text, with a mark if that is not all."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + CUT
