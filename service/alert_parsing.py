"""Read alerts of any version: id, severity and time must be valid; all other fields may be invalid.

An alert that this version cannot read in full still matters to somebody, so it is sent without the invalid
fields. A message without a valid id, severity or time is not an alert.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from deltaloom.messages import ModerationAlert

_NEEDED: Final = frozenset({"id", "severity", "raised_at"})


class NotAnAlertError(ValueError):
    """The message is not JSON, or has no valid id, severity or time; the text names the problem."""


class ParsedAlert(NamedTuple):
    """An alert, and the names of the fields that were omitted because this version cannot read them."""

    alert: ModerationAlert
    left_out: tuple[str, ...] = ()


def parse_alert(data: str | bytes) -> ParsedAlert:
    """Read an alert from its JSON.

    Raises:
        NotAnAlertError: the data is not an alert of any version.
    """
    try:
        return ParsedAlert(ModerationAlert.model_validate_json(data))
    except ValidationError:
        return _parse_without_invalid_fields(_object_in(data))


def _object_in(data: str | bytes) -> dict[str, Any]:
    """Return the JSON object in the data.

    An unpaired surrogate, which UTF-8 cannot encode, becomes a question mark.
    """
    try:
        written = json.dumps(json.loads(data), ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        raise NotAnAlertError("it is not JSON") from None
    value = json.loads(written)
    if not isinstance(value, dict):
        raise NotAnAlertError("it is not a JSON object")
    return value


def _parse_without_invalid_fields(fields: dict[str, Any]) -> ParsedAlert:
    """Omit invalid fields until the rest is a valid alert."""
    left_out: set[str] = set()
    while True:
        try:
            # Validate an object: the model's own JSON reader refuses deep nesting even in unknown fields.
            alert = ModerationAlert.model_validate({"type": "", "text": "", **fields})
        except ValidationError as error:
            wrong = {str(each["loc"][0]): each["msg"] for each in error.errors(include_url=False)}
            fatal = [name for name in wrong if name in _NEEDED]
            if not wrong.keys() & fields.keys():  # no invalid field is left to omit
                fatal += list(wrong)
            if fatal:
                raise NotAnAlertError(f"{fatal[0]}: {wrong[fatal[0]]}") from None
            left_out |= wrong.keys()
            fields = {name: value for name, value in fields.items() if name not in wrong}
        else:
            return ParsedAlert(alert, tuple(sorted(left_out)))
