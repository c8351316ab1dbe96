r"""Models of `alerts.toml`.

```toml
[destinations.on-call]                # where alerts go: service/alerts/destinations/
type = "slack"
url_env = "SLACK_WEBHOOK_URL"

[[rules]]                             # severity and category: the first rule that matches, then shipped ones
name = "competitors"
pattern = '(?i)\bacme\b'
severity = "info"

[[routes]]                            # every route that matches; without routes, everything goes everywhere
match = { severity = ["warning", "critical"] }
to = ["on-call"]
text = { excerpt = 200 }              # "full", "none" (the default), or the first characters

[[mutes]]                             # alerts that are suppressed until a date
match = { tenant = "load-test" }
until = 2026-12-31T00:00:00Z
why = "load test of December"

[redaction]                           # removed from every text before it is sent
patterns = ['\bEMP-\d{6}\b']
```

A validator's `ValueError` is a phrase that describes an allowed value. `service/alerts/deciding/mistakes.py`
turns it into a sentence with file, line and key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    WrapValidator,
    model_validator,
)

from deltaloom.messages import KnownAlertSeverity, KnownKind, KnownStatus
from deltaloom.reasons import KnownReasonClass
from service.alerts.deciding.patterns import Pattern
from service.alerts.delivery import Privacy  # noqa: TC001 - pydantic resolves the annotations of TextShare
from service.alerts.destinations.options import Table, one_or_more
from service.alerts.destinations.registry import DestinationOptions
from service.alerts.phases import Phase
from service.handler_packages import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

MAX_EXCERPT = 10_000
"""Maximum length of an excerpt, in characters; longer texts need `full`."""

Detector = Literal["mail", "phone", "card"]
"""Names of the default detectors, which `service/alerts/deciding/privacy.py` defines."""


@dataclass(frozen=True, slots=True)
class TextShare:
    """The share of a text that a route sends."""

    privacy: Privacy = "none"
    characters: int = 0
    """Length of the excerpt; 0 unless `privacy` is `excerpt`."""


def _kind_name(value: Any, validate: Callable[[Any], str]) -> str:
    try:
        return validate(value)
    except ValidationError:
        if isinstance(value, str) and kind_of(value) is not None:
            return value
        raise


def _pattern(value: Any) -> Pattern:
    if not isinstance(value, str) or not value:
        raise ValueError("a regular expression, as a string")
    return Pattern(value)


def _text_share(value: Any) -> TextShare:
    if value in ("full", "none"):
        return TextShare(value)
    number = value.get("excerpt") if isinstance(value, dict) and value.keys() == {"excerpt"} else None
    if type(number) is int and 0 < number <= MAX_EXCERPT:
        return TextShare("excerpt", number)
    raise ValueError(f'"full", "none" or {{ excerpt = N }} with N from 1 to {MAX_EXCERPT}')


T = TypeVar("T")
OneOrMore = Annotated[tuple[T, ...], BeforeValidator(one_or_more), Field(min_length=1)]
"""A value, or a non-empty array of values; always validated to a tuple."""
KindName = Annotated[KnownKind, WrapValidator(_kind_name)]
TextPattern = Annotated[Pattern, PlainValidator(_pattern)]
DestinationName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Match(Table):
    """Criteria for alerts. All criteria given must match. In a name, `*` stands for any characters."""

    phase: OneOrMore[Phase] | None = None
    kind: OneOrMore[KindName] | None = None
    severity: OneOrMore[KnownAlertSeverity] | None = None
    category: OneOrMore[str] | None = None
    tenant: OneOrMore[str] | None = None
    model: OneOrMore[str] | None = None
    provider: OneOrMore[str] | None = None
    status: OneOrMore[KnownStatus] | None = None
    reason: OneOrMore[str] | None = None
    reason_class: OneOrMore[KnownReasonClass] | None = None
    text: OneOrMore[TextPattern] | None = None
    """Patterns, of which at least one must match somewhere in the text before redaction."""


EVERYTHING = Match()


class AlertRule(Table):
    """A rule that gives matching alerts a severity and a category."""

    name: str
    pattern: OneOrMore[TextPattern] | None = None
    """Shorthand for `match.text`."""
    match: Match = EVERYTHING
    severity: KnownAlertSeverity | None = None
    """Severity to set; None keeps the worker's."""
    category: str | None = None
    """Category to set; None uses the rule's name."""

    @model_validator(mode="after")
    def _does_not_match_what_it_sets(self) -> Self:
        if self.match.severity or self.match.category:
            raise ValueError("a match without severity and category, which are what a rule decides")
        if self.pattern is not None and self.match.text is not None:
            raise ValueError("one of pattern and match.text, not both")
        if self.pattern is None and self.match == EVERYTHING:
            raise ValueError("a pattern, or a match with a criterion; else it would match every alert")
        return self


class AlertRoute(Table):
    """A route that sends matching alerts to one or more destinations."""

    name: str | None = None
    match: Match = EVERYTHING
    to: OneOrMore[str]
    text: Annotated[TextShare, PlainValidator(_text_share)] = TextShare()


class Mute(Table):
    """A mute that keeps matching alerts from all or some destinations until a date."""

    match: Match
    to: OneOrMore[str] | None = None
    """Names of the destinations that are muted; None mutes all."""
    until: AwareDatetime
    why: str


class Redaction(Table):
    """Detectors and patterns of what is removed from texts."""

    defaults: tuple[Detector, ...] = get_args(Detector)
    patterns: tuple[TextPattern, ...] = ()


class Config(Table):
    """The contents of `alerts.toml`."""

    destinations: dict[DestinationName, DestinationOptions] = Field(default_factory=dict)
    shipped_rules: bool | tuple[str, ...] = True
    """True to try all shipped rules after the file's own, False for none, or the names of those to try."""
    rules: tuple[AlertRule, ...] = ()
    routes: tuple[AlertRoute, ...] = ()
    mutes: tuple[Mute, ...] = ()
    redaction: Redaction = Redaction()
