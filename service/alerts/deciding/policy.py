"""The policy: what each destination gets of an alert, or why it gets nothing.

An alert is judged by the rules, kept back by the mutes, and sent to the destinations of every route that
fits. Of several routes to one destination, the first decides how much of the text it gets. A file without
routes sends everything to everybody, without the text.

Pure: the same alert, at the same time, by the same file, gives the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from service.alerts.deciding.config import parse, read, secrets_missing
from service.alerts.deciding.findings import ConfigError, Places
from service.alerts.deciding.matching import mismatch, mismatch_of_route
from service.alerts.deciding.privacy import Redactor, sha256_of
from service.alerts.deciding.rules import judge, rules_of
from service.alerts.deciding.schema import Mute, Route
from service.alerts.delivery import Notification
from service.alerts.phases import beginning_of, group_of
from service.alerts.severity import rank
from service.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.matching import Judged
    from service.alerts.deciding.schema import Config, TextLeaving
    from service.alerts.destinations.options import DestinationOptions

_REMEMBERED: Final = 1000
"""Alerts, or twice as many, that are remembered with what is made of them, ..."""

_REMEMBERED_LENGTH: Final = 5000
"""... if their text has no more characters than this."""

EVERYTHING_TO_EVERYBODY: Final = "everything"
"""The name of the route that is there where the file has none."""


@dataclass(frozen=True, slots=True)
class Passed:
    """Why a destination gets nothing of an alert."""

    reason: Literal["unrouted", "muted"]
    why: str
    """One line for a person."""


Decision = Notification | Passed


class NamedRoute(NamedTuple):
    """A route, and the name it goes by."""

    name: str
    route: Route


class Policy:
    """What a file says, ready to be asked."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.destinations = tuple(config.destinations)
        self.rules = rules_of(config)
        self.routes = tuple(_named(config))
        self._redactor = Redactor.of(config.redaction)
        # Every destination asks for the same ones.
        self._judged: Recent[ModerationAlert, Judged] = Recent(_REMEMBERED)
        self._leaving: Recent[tuple[ModerationAlert, TextLeaving], ModerationAlert] = Recent(_REMEMBERED)

    def decide(self, alert: ModerationAlert, now: datetime) -> Mapping[str, Decision]:
        """For each destination, by name: the message, or why there is none.

        Args:
            alert: as the worker wrote it.
            now: an aware time; mutes end by it.
        """
        judged = self.judge(alert)
        return {name: self._decide(judged, name, now) for name in self.destinations}

    def decide_for(self, destination: str, alert: ModerationAlert, now: datetime) -> Decision:
        """The same for one of them."""
        return self._decide(self.judge(alert), destination, now)

    def judge(self, alert: ModerationAlert) -> Judged:
        """What the rules say of an alert."""
        if len(alert.text) > _REMEMBERED_LENGTH:
            return judge(alert, self.rules)
        judged = self._judged.get(alert)
        if judged is None:
            judged = self._judged[alert] = judge(alert, self.rules)
        return judged

    def leaving(self, alert: ModerationAlert, how_much: TextLeaving) -> ModerationAlert:
        """An alert as it may leave by a route that lets so much of the text leave."""
        if len(alert.text) > _REMEMBERED_LENGTH:
            return self._redactor.leaving(alert, how_much)
        leaving = self._leaving.get((alert, how_much))
        if leaving is None:
            leaving = self._leaving[alert, how_much] = self._redactor.leaving(alert, how_much)
        return leaving

    def _route_to(self, destination: str, judged: Judged) -> NamedRoute | None:
        """The first route by which a destination gets this; None: none fits."""
        for named in self.routes:
            if destination in named.route.to and mismatch_of_route(named.route.match, judged) is None:
                return named
        return None

    def _mute_of(self, destination: str, judged: Judged, now: datetime) -> Mute | None:
        """The first mute that keeps this from a destination; None: none does."""
        for mute in self.config.mutes:
            concerns = mute.to is None or destination in mute.to
            if concerns and now < mute.until and mismatch(mute.match, judged) is None:
                return mute
        return None

    def _decide(self, judged: Judged, destination: str, now: datetime) -> Decision:
        named = self._route_to(destination, judged)
        if named is None:
            return Passed("unrouted", "no route to it fits")
        mute = self._mute_of(destination, judged, now)
        if mute is not None:
            return Passed("muted", f"{mute.why} (until {mute.until.isoformat()})")
        alert, how_much = judged.alert, named.route.text
        return Notification(
            id=alert.id,
            alert=self.leaving(alert, how_much),
            severity=judged.severity,
            category=judged.category,
            rule=judged.rule,
            route=named.name,
            privacy=how_much.privacy,
            text_sha256=sha256_of(alert.text),
            group=group_of(alert),
            resolves=self._resolves(judged, destination, now),
        )

    def _resolves(self, judged: Judged, destination: str, now: datetime) -> bool:
        """Whether this ends what the destination was told of, and is no worse than what it was told.

        A refusal that turns out critical when its whole text is known must not be taken for its end, and what
        a destination never heard the beginning of is news to it.
        """
        beginning = beginning_of(judged.alert)
        if beginning is None:
            return False
        began = self.judge(beginning)
        return (
            rank(judged.severity) >= rank(began.severity)
            and self._route_to(destination, began) is not None
            and self._mute_of(destination, began, now) is None
        )


def _named(config: Config) -> Iterator[NamedRoute]:
    if not config.routes and config.destinations:
        yield NamedRoute(EVERYTHING_TO_EVERYBODY, Route(to=tuple(config.destinations)))
    for number, route in enumerate(config.routes, 1):
        yield NamedRoute(route.name or f"route {number}", route)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that was read and can be used."""

    policy: Policy
    destinations: Mapping[str, DestinationOptions]
    places: Places
    """Where in the file is what."""


def load(path: Path, environment: Mapping[str, str]) -> Loaded:
    """Read `alerts.toml`.

    Args:
        path: of the file.
        environment: where the variables that it names are looked for; no value of them is kept.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong: every mistake with file, line and key.
    """
    text = read(path)
    config = parse(text, str(path))
    missing = secrets_missing(text, config, environment)
    if missing:
        raise ConfigError(str(path), missing)
    return Loaded(Policy(config), config.destinations, Places(text))
