"""Reads `alerts.toml`, and says all that is wrong with it: file, line, key, and what would be right.

`parse` gives a `Config` or raises `ConfigError` with everything that is wrong at once; `warnings` says what
is allowed and yet hardly meant; `secrets_missing` looks whether what the file points at is there.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from service.alerts.deciding.findings import ConfigError, Finding, Places, perhaps
from service.alerts.deciding.matching import OTHER, fits
from service.alerts.deciding.mistakes import mistake, no_toml
from service.alerts.deciding.rules import rules_of, shipped
from service.alerts.deciding.schema import Config
from service.alerts.destinations.errors import DestinationError
from service.alerts.destinations.secrets import from_file, from_variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from service.alerts.deciding.locations import KeyPath
    from service.alerts.deciding.schema import Mute, Route, Rule

__all__ = ["ConfigError", "parse", "read", "secrets_missing", "warnings"]


MAX_BYTES = 1024 * 1024
"""Of a file: a thousand routes have a tenth of it."""


def read(path: Path) -> str:
    """The text of a file of up to `MAX_BYTES`; `ConfigError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            too_large = f"has more than {MAX_BYTES} bytes; is it the right file?"
            raise ConfigError(str(path), [Finding(0, "", too_large)])
        return data.decode()
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
        raise ConfigError(file, [no_toml(error, text)]) from None
    places = Places(text)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        found = [mistake(details, places) for details in error.errors(include_url=False)]
        raise ConfigError(file, found) from None
    wrong = [*_dangling(config, places), *_ambiguous(config, places)]
    if wrong:
        raise ConfigError(file, wrong)
    return config


def warnings(text: str, config: Config, now: datetime) -> list[Finding]:
    """What a valid file says in vain."""
    return sorted(_in_vain(config, Places(text), now))


def secrets_missing(text: str, config: Config, environment: Mapping[str, str]) -> list[Finding]:
    """Variables and files that the destinations name and that are not there, or empty."""
    places = Places(text)
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


def _concerned(config: Config) -> Iterator[tuple[KeyPath, Route | Mute]]:
    """What says whom it is about, and where in the file it stands."""
    yield from ((("routes", index), route) for index, route in enumerate(config.routes))
    yield from ((("mutes", index), mute) for index, mute in enumerate(config.mutes))


def _dangling(config: Config, places: Places) -> Iterator[Finding]:
    """Names that name nothing."""
    for path, entry in _concerned(config):
        for position, name in enumerate(entry.to or ()):
            if name not in config.destinations:
                says = f'"{name}" is no destination{perhaps(name, config.destinations)}'
                yield places.finding((*path, "to", position), says)
    if isinstance(config.shipped_rules, tuple):
        names = [rule.name for rule in shipped()]
        for position, name in enumerate(config.shipped_rules):
            if name not in names:
                says = f'"{name}" is no rule that ships{perhaps(name, names)}'
                yield places.finding(("shipped_rules", position), says)


def _ambiguous(config: Config, places: Places) -> Iterator[Finding]:
    """Names that name two things."""
    tables: Mapping[str, Sequence[Rule | Route]] = {"rules": config.rules, "routes": config.routes}
    for table, entries in tables.items():
        names = [entry.name for entry in entries]
        for index, name in enumerate(names):
            if name is not None and name in names[:index]:
                yield places.finding((table, index, "name"), f'"{name}" is there twice')


def _in_vain(config: Config, places: Places, now: datetime) -> Iterator[Finding]:
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
                says = f'no rule gives the category "{name}"{perhaps(name, given)}'
                yield places.finding((*path, "match", "category", position), says)
