"""Reads `alerts.toml`, and says what is wrong with one: file, line, key, and what would be right.

`parse` gives a `Config` or raises `ConfigError` with everything that is wrong at once; `warnings` says what
is allowed and yet hardly meant; `secrets_missing` looks whether what the file points at is there. No line of
theirs repeats a value from below `destinations`: people try to write secrets there.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import ValidationError

from service.alerts.destinations.errors import DestinationError
from service.alerts.destinations.options import DestinationOptions, Grouping, RateLimit, Table
from service.alerts.destinations.secrets import from_file, from_variable
from service.alerts.locations import dotted, lines_of
from service.alerts.matching import OTHER, fits
from service.alerts.rules import rules_of, shipped
from service.alerts.schema import Config, Match, Mute, Redaction, Route, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from service.alerts.locations import KeyPath

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


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing about the file."""

    line: int
    """From 1; 0: of the file as a whole."""
    key: str
    """Such as `routes[0].match.severity`; empty where it is about none."""
    says: str

    def told(self, file: str) -> str:
        """As one line: `alerts.toml:12: routes[0].to: …`."""
        where = f"{file}:{self.line}" if self.line else file
        return ": ".join(part for part in (where, self.key, self.says) if part)


class ConfigError(ValueError):
    """The operator's file cannot be used: one line for each thing that is wrong, with the remedy."""

    def __init__(self, file: str, findings: Iterable[Finding]) -> None:
        self.file = file
        self.findings = tuple(sorted(findings))
        super().__init__("\n".join(finding.told(file) for finding in self.findings))


def read(path: Path) -> str:
    """The text of a file; `ConfigError` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), [Finding(0, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(str(path), [Finding(line, "", "is not UTF-8, which TOML is")]) from None


def parse(text: str, file: str) -> Config:
    """What a file says.

    Args:
        text: of the file.
        file: its name, for the errors.

    Raises:
        ConfigError: everything that is wrong with it. Whether the names in it name something is looked at
            only if the rest is right.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(file, [_syntax(error, text)]) from None
    places = _Places(text)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        found = [_found(details, places) for details in error.errors(include_url=False)]
        raise ConfigError(file, found) from None
    wrong = [*_dangling(config, places), *_ambiguous(config, places)]
    if wrong:
        raise ConfigError(file, wrong)
    return config


def warnings(text: str, config: Config, now: datetime) -> list[Finding]:
    """What a valid file says in vain."""
    return sorted(_in_vain(config, _Places(text), now))


def secrets_missing(text: str, config: Config, environment: Mapping[str, str]) -> list[Finding]:
    """Variables and files that the destinations name and that are not there, or empty."""
    places = _Places(text)
    found: list[Finding] = []
    for name, options in config.destinations.items():
        for option, value in options:
            for where in value if isinstance(value, tuple) else () if value is None else (value,):
                try:
                    if option.endswith("_env"):
                        from_variable(where, environment)
                    elif option.endswith("_file"):
                        from_file(where)
                except DestinationError as error:
                    found.append(places.finding(("destinations", name, option), str(error)))
    return sorted(found)


def finding(text: str, path: KeyPath, says: str) -> Finding:
    """Something about a key of a file that somebody else found out."""
    return _Places(text).finding(path, says)


class _Places:
    """Makes findings of paths into a document."""

    def __init__(self, text: str) -> None:
        self._lines = lines_of(text)

    def finding(self, path: KeyPath, says: str) -> Finding:
        """About a key; on the line of the innermost table around it if it is not there."""
        if path not in self._lines and isinstance(path[-1], int):
            path = path[:-1]  # one value where there could be several
        there = path
        while there not in self._lines:
            there = there[:-1]
        return Finding(self._lines[there], dotted(path), says)


def _syntax(error: tomllib.TOMLDecodeError, text: str) -> Finding:
    match = _SYNTAX_LINE.match(str(error))
    says = match["says"] if match else str(error)
    line = int(match["line"] or text.count("\n") + 1) if match else 0
    return Finding(line, "", f"is no TOML: {says[:1].lower()}{says[1:]}")


def _found(details: ErrorDetails, places: _Places) -> Finding:
    """One error of pydantic's, in our words."""
    path, message = _path(details["loc"]), details["msg"].removeprefix("Value error, ")
    match details["type"]:
        case "extra_forbidden":
            says = f"is not known here{_perhaps(str(path[-1]), _known_at(details['loc'][:-1]))}"
        case "missing":
            says = "is missing"
        case "union_tag_not_found":
            path, says = (*path, "type"), f"is missing: one of {', '.join(_KINDS)}"
        case "union_tag_invalid":
            tag = str(details["ctx"]["tag"])
            path, says = (*path, "type"), f"should be one of {', '.join(_KINDS)}{_perhaps(tag, _KINDS)}"
        case "timezone_aware":
            says = "should have a time zone, like 2026-12-31T00:00:00Z"
        case "value_error" if isinstance(details["input"], dict) and not message.startswith('"'):
            says = f"needs {message}"
        case "value_error":
            says = f"{_repeated(path, details['input'])}should be {message}"
        case "literal_error":
            allowed = re.findall("'([^']*)'", details["ctx"]["expected"])
            wrong = details["input"] if isinstance(details["input"], str) else ""
            says = f"{_repeated(path, wrong)}{_SUBJECT.sub('', message)}{_perhaps(wrong, allowed)}"
        case _:
            says = f"{_repeated(path, details['input'])}{_SUBJECT.sub('', message)}"
    return places.finding(path, says)


def _path(loc: Sequence[str | int]) -> KeyPath:
    """Where pydantic found it, without the names of types that it puts between the keys."""
    steps = [step for step in loc if step not in _NO_KEYS and not str(step).startswith("tuple[")]
    if steps[:1] == ["destinations"] and steps[2:] and steps[2] in _KINDS:
        del steps[2]
    return tuple(steps)


def _known_at(loc: Sequence[str | int]) -> list[str]:
    """What may stand in the table where pydantic was."""
    shape = tuple("*" if depth == 1 else str(step) for depth, step in enumerate(_path(loc)))
    table = _KINDS[str(loc[2])] if shape == ("destinations", "*") else _TABLES.get(shape)
    return [field.alias or name for name, field in table.model_fields.items()] if table else []


def _repeated(path: KeyPath, value: Any) -> str:
    """What stands in the file, if it is short and cannot be a secret."""
    if path[:1] == (_NOT_REPEATED,) or not isinstance(value, str | int | float):
        return ""
    written = json.dumps(value, ensure_ascii=False)
    return f"{written} " if len(written) <= _REPEATED_AT_MOST else ""


def _perhaps(wrong: str, right: Iterable[str]) -> str:
    close = get_close_matches(wrong, list(right), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _concerned(config: Config) -> Iterator[tuple[KeyPath, Route | Mute]]:
    """What says whom it is about, and where in the file it stands."""
    yield from ((("routes", index), route) for index, route in enumerate(config.routes))
    yield from ((("mutes", index), mute) for index, mute in enumerate(config.mutes))


def _dangling(config: Config, places: _Places) -> Iterator[Finding]:
    """Names that name nothing."""
    for path, entry in _concerned(config):
        for position, name in enumerate(entry.to or ()):
            if name not in config.destinations:
                says = f'"{name}" is no destination{_perhaps(name, config.destinations)}'
                yield places.finding((*path, "to", position), says)
    if isinstance(config.shipped_rules, tuple):
        names = [rule.name for rule in shipped()]
        for position, name in enumerate(config.shipped_rules):
            if name not in names:
                says = f'"{name}" is no rule that ships{_perhaps(name, names)}'
                yield places.finding(("shipped_rules", position), says)


def _ambiguous(config: Config, places: _Places) -> Iterator[Finding]:
    """Names that name two things."""
    tables: Mapping[str, Sequence[Rule | Route]] = {"rules": config.rules, "routes": config.routes}
    for table, entries in tables.items():
        names = [entry.name for entry in entries]
        for index, name in enumerate(names):
            if name is not None and name in names[:index]:
                yield places.finding((table, index, "name"), f'"{name}" is there twice')


def _in_vain(config: Config, places: _Places, now: datetime) -> Iterator[Finding]:
    if not config.destinations:
        yield places.finding((), "there are no destinations: nothing is sent")
    reached = {name for route in config.routes for name in route.to}
    for name in config.destinations:
        if config.routes and name not in reached:
            yield places.finding(("destinations", name), "no route leads here: it gets nothing")
    for index, mute in enumerate(config.mutes):
        if mute.until <= now:
            yield places.finding(("mutes", index, "until"), "is over: this mutes nothing any more")
    given = [OTHER, *(rule.category or rule.name for rule in rules_of(config))]
    for path, entry in _concerned(config):
        for position, name in enumerate(entry.match.category or ()):
            if not any(fits(name, category) for category in given):
                says = f'no rule gives the category "{name}"{_perhaps(name, given)}'
                yield places.finding((*path, "match", "category", position), says)
