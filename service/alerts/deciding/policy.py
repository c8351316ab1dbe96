"""The policy: which message each destination gets for an alert, or why it gets none.

The rules give an alert its severity and category, every matching route sends it to its destinations, and
mutes suppress it. If several routes lead to one destination, the first of them decides how much of the text
is sent. A file without routes sends every alert to every destination, without the text. Rules, routes and
mutes do not apply to heartbeats: a destination has an option of its own for them.

The policy is pure: the same alert, time and file always give the same decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from service.alerts.deciding.config import parse, read, secrets_missing
from service.alerts.deciding.findings import ConfigError, SourceLocations
from service.alerts.deciding.matching import mismatch, mismatch_of_route
from service.alerts.deciding.privacy import Redactor, sha256_of
from service.alerts.deciding.rules import Judge, rules_of
from service.alerts.deciding.schema import AlertRoute, Mute
from service.alerts.delivery import Notification
from service.alerts.heartbeat_alerts import is_heartbeat
from service.alerts.phases import beginning_of, dedup_key_of, phase_of
from service.alerts.severity import rank
from service.two_generation_cache import TwoGenerationCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.matching import JudgedAlert
    from service.alerts.deciding.schema import Config, TextShare
    from service.alerts.destinations.options import CommonOptions

_CACHE_SIZE: Final = 1000
"""Entries in each of a cache's two generations, so up to twice as many alerts are cached."""

_MAX_CACHED_TEXT: Final = 5000
"""Maximum length in characters of an alert's text for the alert to be cached."""

HEARTBEAT: Final = "heartbeat"
"""Category and route of a heartbeat's message."""

IMPLICIT_ROUTE: Final = "everything"
"""Name of the implicit route of a file without routes."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """The reason why a destination does not get an alert."""

    reason: Literal["unrouted", "muted"]
    why: str
    """Explanation in one line, for a person."""


Decision = Notification | NotSent


class NamedRoute(NamedTuple):
    """A route, and its name or number."""

    name: str
    table: AlertRoute


@dataclass(slots=True)
class _Assessment:
    """The results about an alert that all destinations share."""

    judged: JudgedAlert
    began: JudgedAlert | None
    """The alert that began what this one ends, judged without its text: see `beginning_of`."""
    text_sha256: str | None
    dedup_key: str
    redacted: dict[TextShare, ModerationAlert] = field(default_factory=dict)
    """The alert as it may be sent, by the privacy settings that were needed so far."""


class Policy:
    """The decisions that a file defines."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.destinations = tuple(config.destinations)
        self.rules = rules_of(config)
        self.routes = tuple(_named(config))
        self._judge = Judge(self.rules)
        self._redactor = Redactor.of(config.redaction)
        self._assessed: TwoGenerationCache[ModerationAlert, _Assessment] = TwoGenerationCache(_CACHE_SIZE)

    def decide(self, alert: ModerationAlert, now: datetime) -> Mapping[str, Decision]:
        """Return, by destination, the message or the reason for sending none.

        Args:
            alert: the alert as the worker wrote it.
            now: a time-zone-aware time, compared with the end of each mute.
        """
        assessed = self._assess(alert)
        return {name: self._decide(name, assessed, now) for name in self.destinations}

    def decide_for(self, destination: str, alert: ModerationAlert, now: datetime) -> Decision:
        """Return the decision for one destination: the message, or the reason for sending none."""
        return self._decide(destination, self._assess(alert), now)

    def judge(self, alert: ModerationAlert) -> JudgedAlert:
        """Return the alert with the severity and category that the rules give it."""
        return self._assess(alert).judged

    def _assess(self, alert: ModerationAlert) -> _Assessment:
        if len(alert.text) > _MAX_CACHED_TEXT:
            return self._assess_now(alert)
        assessed = self._assessed.get(alert)
        if assessed is None:
            assessed = self._assessed[alert] = self._assess_now(alert)
        return assessed

    def _assess_now(self, alert: ModerationAlert) -> _Assessment:
        beginning = beginning_of(alert)
        return _Assessment(
            judged=self._judge.judge(alert),
            began=None if beginning is None else self._judge.judge(beginning),
            text_sha256=sha256_of(alert.text),
            dedup_key=dedup_key_of(alert),
        )

    def _redact(self, assessed: _Assessment, share: TextShare) -> ModerationAlert:
        """Return the alert as it may be sent by a route with this privacy setting."""
        redacted = assessed.redacted.get(share)
        if redacted is None:
            redacted = assessed.redacted[share] = self._redactor.redact(assessed.judged.alert, share)
        return redacted

    def _route_to(self, destination: str, judged: JudgedAlert) -> NamedRoute | None:
        """Return the first matching route to a destination; None if none matches."""
        for route in self.routes:
            if destination in route.table.to and mismatch_of_route(route.table.match, judged) is None:
                return route
        return None

    def _mute_of(self, destination: str, judged: JudgedAlert, now: datetime) -> Mute | None:
        """Return the first active mute that keeps the alert from a destination; None if none does."""
        for mute in self.config.mutes:
            concerns = mute.to is None or destination in mute.to
            if concerns and now < mute.until and mismatch(mute.match, judged) is None:
                return mute
        return None

    def _decide(self, destination: str, assessed: _Assessment, now: datetime) -> Decision:
        judged = assessed.judged
        if is_heartbeat(judged.alert):
            return self._decide_heartbeat(destination, assessed)
        route = self._route_to(destination, judged)
        if route is None:
            return NotSent("unrouted", "no route to it fits")
        mute = self._mute_of(destination, judged, now)
        if mute is not None:
            return NotSent("muted", f"{mute.why} (until {mute.until.isoformat()})")
        share = route.table.text
        return Notification(
            id=judged.alert.id,
            alert=self._redact(assessed, share),
            severity=judged.severity,
            category=judged.category,
            rule=judged.rule,
            route=route.name,
            privacy=share.privacy,
            text_sha256=assessed.text_sha256,
            dedup_key=assessed.dedup_key,
            resolves=self._resolves(assessed, destination, now),
        )

    def _decide_heartbeat(self, destination: str, assessed: _Assessment) -> Decision:
        """Return the message for the end of a heartbeat. It is marked as a test, and has the whole text."""
        alert = assessed.judged.alert
        if not self.config.destinations[destination].heartbeat:
            return NotSent("unrouted", "it is a heartbeat, and the destination has no heartbeat = true")
        if phase_of(alert) != "finished":
            return NotSent("unrouted", "it is a heartbeat, of which only the finishing alert is sent")
        return Notification(
            id=alert.id,
            alert=alert,
            severity="info",
            category=HEARTBEAT,
            rule=None,
            route=HEARTBEAT,
            privacy="full",
            text_sha256=assessed.text_sha256,
            dedup_key=assessed.dedup_key,
            resolves=True,
            test=True,
        )

    def _resolves(self, assessed: _Assessment, destination: str, now: datetime) -> bool:
        """Return whether this alert ends one that the destination gets, and is not more severe than that one.

        A refusal that turns out critical once its whole text is known must not close the earlier alert. If
        the destination does not get the beginning, the end is news to it.

        The beginning is judged without its text, so a refusal whose first words were critical already is
        not resolved either.
        """
        began = assessed.began
        return (
            began is not None
            and rank(assessed.judged.severity) >= rank(began.severity)  # a higher rank is less severe
            and self._route_to(destination, began) is not None
            and self._mute_of(destination, began, now) is None
        )


def _named(config: Config) -> Iterator[NamedRoute]:
    if not config.routes and config.destinations:
        yield NamedRoute(IMPLICIT_ROUTE, AlertRoute(to=tuple(config.destinations)))
    for number, route in enumerate(config.routes, 1):
        yield NamedRoute(route.name or f"route {number}", route)


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """The policy and destinations of a valid file."""

    policy: Policy
    destinations: Mapping[str, CommonOptions]
    locations: SourceLocations
    """Lines of the file's keys, for further findings."""


def load(path: Path, environment: Mapping[str, str]) -> LoadedPolicy:
    """Read `alerts.toml` and check that the secrets it refers to exist.

    Args:
        path: path of the file.
        environment: environment variables in which the file's `_env` names are looked up. No value is kept.

    Raises:
        ConfigError: the file cannot be read or has mistakes; lists every mistake with file, line and key.
    """
    text = read(path)
    config = parse(text, str(path))
    missing = secrets_missing(text, config, environment)
    if missing:
        raise ConfigError(str(path), missing)
    return LoadedPolicy(Policy(config), config.destinations, SourceLocations(text))
