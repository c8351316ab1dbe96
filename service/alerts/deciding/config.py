"""Read `alerts.toml` and report all its mistakes, each with file, line, key and remedy.

`parse` returns a `Config` or raises one `ConfigError` with every mistake. `warnings` reports settings that
are valid but have no effect. `secrets_missing` reports secrets that the file refers to but that do not exist.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from service.alerts.deciding.findings import ConfigError, Finding, SourceLocations, suggestion
from service.alerts.deciding.matching import OTHER, fits
from service.alerts.deciding.mistakes import syntax_finding, validation_finding
from service.alerts.deciding.rules import rules_of, shipped
from service.alerts.deciding.schema import Config
from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.secrets import from_file, from_variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from service.alerts.deciding.locations import KeyPath
    from service.alerts.deciding.schema import AlertRoute, AlertRule, Mute

__all__ = ["ConfigError", "parse", "read", "secrets_missing", "warnings"]


MAX_BYTES = 1024 * 1024
"""Maximum size of the file; a thousand routes take a tenth of it."""


def read(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: the file cannot be read, is larger than `MAX_BYTES`, or is not UTF-8.
    """
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
        raise ConfigError(str(path), [Finding(line, "", "is not UTF-8, as TOML has to be")]) from None


def parse(text: str, file: str) -> Config:
    """Parse and validate the text of a file.

    Args:
        text: contents of the file.
        file: name of the file, for the errors.

    Raises:
        ConfigError: lists all mistakes. References between tables are checked only if the rest is valid.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(file, [syntax_finding(error, text)]) from None
    locations = SourceLocations(text)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        found = [validation_finding(details, locations) for details in error.errors(include_url=False)]
        raise ConfigError(file, found) from None
    wrong = [*_dangling(config, locations), *_ambiguous(config, locations)]
    if wrong:
        raise ConfigError(file, wrong)
    return config


def warnings(text: str, config: Config, now: datetime) -> list[Finding]:
    """Return findings about settings of a valid file that have no effect, in order of their lines."""
    return sorted(_ineffective(config, SourceLocations(text), now))


def secrets_missing(text: str, config: Config, environment: Mapping[str, str]) -> list[Finding]:
    """Return findings about variables and files that destinations name but that do not exist."""
    locations = SourceLocations(text)
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
                    found.append(locations.finding(("destinations", name, option), str(error)))
    return sorted(found)


def _routes_and_mutes(config: Config) -> Iterator[tuple[KeyPath, AlertRoute | Mute]]:
    """Yield each route and each mute with its key path."""
    yield from ((("routes", index), route) for index, route in enumerate(config.routes))
    yield from ((("mutes", index), mute) for index, mute in enumerate(config.mutes))


def _dangling(config: Config, locations: SourceLocations) -> Iterator[Finding]:
    """Yield findings about names of destinations and shipped rules that do not exist."""
    for path, entry in _routes_and_mutes(config):
        for position, name in enumerate(entry.to or ()):
            if name not in config.destinations:
                message = f'"{name}" is not a destination{suggestion(name, config.destinations)}'
                yield locations.finding((*path, "to", position), message)
    if isinstance(config.shipped_rules, tuple):
        names = [rule.name for rule in shipped()]
        for position, name in enumerate(config.shipped_rules):
            if name not in names:
                message = f'"{name}" is not a shipped rule{suggestion(name, names)}'
                yield locations.finding(("shipped_rules", position), message)


def _ambiguous(config: Config, locations: SourceLocations) -> Iterator[Finding]:
    """Yield findings about names that two rules, or two routes, share."""
    tables: Mapping[str, Sequence[AlertRule | AlertRoute]] = {"rules": config.rules, "routes": config.routes}
    for table, entries in tables.items():
        names = [entry.name for entry in entries]
        for index, name in enumerate(names):
            if name is not None and name in names[:index]:
                yield locations.finding((table, index, "name"), f'"{name}" is used twice')


def _ineffective(config: Config, locations: SourceLocations, now: datetime) -> Iterator[Finding]:
    """Yield findings about settings that have no effect at the time `now`."""
    if not config.destinations:
        yield locations.finding((), "there are no destinations: nothing is sent")
    reached = {name for route in config.routes for name in route.to}
    for name in config.destinations:
        if config.routes and name not in reached:
            yield locations.finding(("destinations", name), "no route leads here, so it gets no alerts")
    for index, mute in enumerate(config.mutes):
        if mute.until <= now:
            yield locations.finding(("mutes", index, "until"), "has passed, so this mute has no effect")
    given = [OTHER, *(rule.category or rule.name for rule in rules_of(config))]
    for path, entry in _routes_and_mutes(config):
        for position, name in enumerate(entry.match.category or ()):
            if not any(fits(name, category) for category in given):
                message = f'no rule gives the category "{name}"{suggestion(name, given)}'
                yield locations.finding((*path, "match", "category", position), message)
