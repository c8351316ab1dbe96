"""What the TOML parser and the models find wrong with `alerts.toml`, in words for the one who wrote it.

No value from below `destinations` is repeated: people try to write secrets there.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, get_args

from service.alerts.deciding.findings import Finding, perhaps
from service.alerts.deciding.schema import Config, Match, Mute, Redaction, Route, Rule
from service.alerts.destinations.options import DestinationOptions, Grouping, RateLimit, Table

if TYPE_CHECKING:
    import tomllib
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from service.alerts.deciding.findings import Places
    from service.alerts.deciding.locations import KeyPath

_NOT_REPEATED = "destinations"
_REPEATED_AT_MOST = 60
_NO_KEYS = ("[key]", "bool")

_KINDS: Final[Mapping[str, type[Table]]] = {
    get_args(options.model_fields["type"].annotation)[0]: options
    for options in get_args(get_args(DestinationOptions)[0])
}
"""The destinations' models, by their `type`."""

_TABLES: Final[Mapping[tuple[str, ...], type[Table]]] = {
    (): Config,
    ("destinations", "*", "group"): Grouping,
    ("destinations", "*", "rate_limit"): RateLimit,
    ("rules", "*"): Rule,
    ("rules", "*", "match"): Match,
    ("routes", "*"): Route,
    ("routes", "*", "match"): Match,
    ("mutes", "*"): Mute,
    ("mutes", "*", "match"): Match,
    ("redaction",): Redaction,
}
"""Which model stands where, to know what somebody may have meant; `*` is any name or number."""

_SYNTAX_LINE = re.compile(
    r"^(?P<says>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)$", re.DOTALL
)
_SUBJECT = re.compile(r"^(?:Input|String|Tuple|List|Dictionary|Value|Datetime|URL) (?=should )")


def no_toml(error: tomllib.TOMLDecodeError, text: str) -> Finding:
    """What `tomllib` says of a text."""
    match = _SYNTAX_LINE.match(str(error))
    says = match["says"] if match else str(error)
    line = int(match["line"] or text.count("\n") + 1) if match else 0
    return Finding(line, "", f"is no TOML: {says[:1].lower()}{says[1:]}")


def mistake(details: ErrorDetails, places: Places) -> Finding:
    """What pydantic says of a value."""
    loc, value = details["loc"], details["input"]
    path, message = _path(loc), _SUBJECT.sub("", details["msg"].removeprefix("Value error, "))
    shown = _shown(path, value)
    match details["type"]:
        case "extra_forbidden":
            says = f"is not known here{perhaps(str(path[-1]), _keys(_table_at(loc[:-1])))}"
        case "missing":
            says = "is missing"
        case "union_tag_not_found":
            path, says = (*path, "type"), f"is missing: one of {', '.join(_KINDS)}"
        case "union_tag_invalid":
            near = perhaps(str(details["ctx"]["tag"]), _KINDS)
            path, says = (*path, "type"), f"should be one of {', '.join(_KINDS)}{near}"
        case "timezone_aware":
            says = "should have a time zone, like 2026-12-31T00:00:00Z"
        case "literal_error":
            allowed = re.findall("'([^']*)'", details["ctx"]["expected"])
            says = f"{shown}{message}{perhaps(str(value), allowed)}"
        case "value_error" if _table_at(loc):
            says = f"needs {message}"
        case "value_error":
            says = f"{shown}should be {message}"
        case _:
            says = f"{shown}{message}"
    return places.finding(path, says)


def _path(loc: Sequence[str | int]) -> KeyPath:
    """Where pydantic found it, without the names of types that it puts between the keys."""
    steps = [step for step in loc if step not in _NO_KEYS and not str(step).startswith("tuple[")]
    if steps[:1] == ["destinations"] and steps[2:] and steps[2] in _KINDS:
        del steps[2]
    return tuple(steps)


def _table_at(loc: Sequence[str | int]) -> type[Table] | None:
    """The model of the table where pydantic was; None if it was at no table."""
    shape = tuple("*" if depth == 1 else str(step) for depth, step in enumerate(_path(loc)))
    if shape == ("destinations", "*"):
        return _KINDS.get(str(loc[-1]))
    return _TABLES.get(shape)


def _keys(table: type[Table] | None) -> list[str]:
    return [field.alias or name for name, field in table.model_fields.items()] if table else []


def _shown(path: KeyPath, value: Any) -> str:
    """What stands in the file, if it is short and cannot be a secret."""
    if path[:1] == (_NOT_REPEATED,) or not isinstance(value, str | int | float):
        return ""
    written = json.dumps(value, ensure_ascii=False)
    return f"{written} " if len(written) <= _REPEATED_AT_MOST else ""
