"""Translate errors of the TOML parser and of pydantic into findings for the author of `alerts.toml`.

Values below `destinations` are never repeated, because people try to write secrets there.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from service.alerts.deciding.findings import Finding, suggestion
from service.alerts.deciding.schema import AlertRoute, AlertRule, Config, Match, Mute, Redaction
from service.alerts.destinations.options import Grouping, RateLimit, Table
from service.alerts.destinations.registry import TYPES

if TYPE_CHECKING:
    import tomllib
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from service.alerts.deciding.findings import SourceLocations
    from service.alerts.deciding.locations import KeyPath

_NOT_REPEATED = "destinations"
_MAX_REPEATED = 60
_NO_KEYS = ("[key]", "bool")

_TABLES: Final[Mapping[tuple[str, ...], type[Table]]] = {
    (): Config,
    ("destinations", "*", "group"): Grouping,
    ("destinations", "*", "rate_limit"): RateLimit,
    ("rules", "*"): AlertRule,
    ("rules", "*", "match"): Match,
    ("routes", "*"): AlertRoute,
    ("routes", "*", "match"): Match,
    ("mutes", "*"): Mute,
    ("mutes", "*", "match"): Match,
    ("redaction",): Redaction,
}
"""Model of the table at each path, for suggestions about misspelled keys; `*` is any name or index."""

_SYNTAX_LINE = re.compile(
    r"^(?P<says>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)$", re.DOTALL
)
_SUBJECT = re.compile(r"^(?:Input|String|Tuple|List|Dictionary|Value|Datetime|URL) (?=should )")


def syntax_finding(error: tomllib.TOMLDecodeError, text: str) -> Finding:
    """Return a finding for a syntax error that `tomllib` reports."""
    match = _SYNTAX_LINE.match(str(error))
    message = match["says"] if match else str(error)
    line = int(match["line"] or text.count("\n") + 1) if match else 0
    return Finding(line, "", f"is not valid TOML: {message[:1].lower()}{message[1:]}")


def validation_finding(details: ErrorDetails, locations: SourceLocations) -> Finding:
    """Return a finding for a validation error that pydantic reports."""
    loc, value = details["loc"], details["input"]
    path, message = _path(loc), _SUBJECT.sub("", details["msg"].removeprefix("Value error, "))
    shown = _shown(path, value)
    match details["type"]:
        case "extra_forbidden":
            message = f"is not known here{suggestion(str(path[-1]), _keys(_table_at(loc[:-1])))}"
        case "missing":
            message = "is missing"
        case "union_tag_not_found":
            path, message = (*path, "type"), f"is missing: one of {', '.join(TYPES)}"
        case "union_tag_invalid":
            near = suggestion(str(details["ctx"]["tag"]), TYPES)
            path, message = (*path, "type"), f"should be one of {', '.join(TYPES)}{near}"
        case "timezone_aware":
            message = "should have a time zone, like 2026-12-31T00:00:00Z"
        case "literal_error":
            allowed = re.findall("'([^']*)'", details["ctx"]["expected"])
            message = f"{shown}{message}{suggestion(str(value), allowed)}"
        case "value_error" if _table_at(loc):
            message = f"needs {message}"
        case "value_error":
            message = f"{shown}should be {message}"
        case _:
            message = f"{shown}{message}"
    return locations.finding(path, message)


def _path(loc: Sequence[str | int]) -> KeyPath:
    """Return pydantic's location as a key path, without the type names that pydantic inserts."""
    steps = [step for step in loc if step not in _NO_KEYS and not str(step).startswith("tuple[")]
    if steps[:1] == ["destinations"] and steps[2:] and steps[2] in TYPES:
        del steps[2]
    return tuple(steps)


def _table_at(loc: Sequence[str | int]) -> type[Table] | None:
    """Return the model of the table at a location; None if the location is not a table."""
    shape = tuple("*" if depth == 1 else str(step) for depth, step in enumerate(_path(loc)))
    if shape == ("destinations", "*"):
        return _options_of(str(loc[-1]))
    return _TABLES.get(shape)


def _options_of(type_: str) -> type[Table] | None:
    return TYPES[type_].options if type_ in TYPES else None


def _keys(table: type[Table] | None) -> list[str]:
    return [field.alias or name for name, field in table.model_fields.items()] if table else []


def _shown(path: KeyPath, value: Any) -> str:
    """Return the value as JSON and a space if it is short and cannot be a secret, else an empty string."""
    if path[:1] == (_NOT_REPEATED,) or not isinstance(value, str | int | float):
        return ""
    written = json.dumps(value, ensure_ascii=False)
    return f"{written} " if len(written) <= _MAX_REPEATED else ""
