r"""What `alerts.toml` may say.

```toml
[destinations.on-call]                # where alerts go: service/alerts/destinations/options.py
type = "slack"
url_env = "SLACK_WEBHOOK_URL"

[[rules]]                             # severity and category: the first rule that fits, then those that ship
name = "competitors"
pattern = '(?i)\bacme\b'
severity = "info"

[[routes]]                            # who gets what: every route that fits. None at all: everything to all
match = { severity = ["warning", "critical"] }
to = ["on-call"]
text = { excerpt = 200 }              # "full", "none" (if nothing is said), or the first so many characters

[[mutes]]                             # what nobody gets for a time
match = { tenant = "load-test" }
until = 2026-12-31T00:00:00Z
why = "load test of December"

[redaction]                           # what is struck out of every text before it leaves
patterns = ['\bEMP-\d{6}\b']
```

A validator's `ValueError` is a phrase that says what would be allowed. `service/alerts/deciding/config.py`
makes it a sentence with file, line and key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import AwareDatetime, BeforeValidator, Field, PlainValidator, model_validator

from deltaloom.messages import KnownAlertSeverity, KnownKind, KnownStatus
from deltaloom.reasons import KnownReasonClass
from service.alerts.deciding.patterns import Pattern
from service.alerts.delivery import Privacy  # noqa: TC001 - pydantic reads what TextLeaving says
from service.alerts.destinations.options import DestinationOptions, Table
from service.alerts.phases import Phase

if TYPE_CHECKING:
    from typing import Self

MOST_EXCERPT = 10_000
"""Characters of an excerpt; whoever wants more says `full`."""

Detector = Literal["mail", "phone", "card"]
"""What is struck out by default; `service/alerts/deciding/privacy.py` knows how each looks."""


@dataclass(frozen=True, slots=True)
class TextLeaving:
    """How much of a text leaves by a route."""

    privacy: Privacy = "none"
    characters: int = 0
    """Of an excerpt."""


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _pattern(value: Any) -> Pattern:
    if not isinstance(value, str) or not value:
        raise ValueError("a regular expression, as a string")
    return Pattern(value)


def _text_leaving(value: Any) -> TextLeaving:
    if value in ("full", "none"):
        return TextLeaving(value)
    number = value.get("excerpt") if isinstance(value, dict) and value.keys() == {"excerpt"} else None
    if type(number) is int and 0 < number <= MOST_EXCERPT:
        return TextLeaving("excerpt", number)
    raise ValueError(f'"full", "none" or {{ excerpt = N }} with N from 1 to {MOST_EXCERPT}')


T = TypeVar("T")
Some = Annotated[tuple[T, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
"""One, or several in an array."""
TextPattern = Annotated[Pattern, PlainValidator(_pattern)]
DestinationName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Match(Table):
    """What an alert has to be: everything that is said here has to fit. In a name, `*` is any characters."""

    phase: Some[Phase] | None = None
    kind: Some[KnownKind] | None = None
    severity: Some[KnownAlertSeverity] | None = None
    category: Some[str] | None = None
    tenant: Some[str] | None = None
    model: Some[str] | None = None
    provider: Some[str] | None = None
    status: Some[KnownStatus] | None = None
    reason: Some[str] | None = None
    reason_class: Some[KnownReasonClass] | None = None
    text: Some[TextPattern] | None = None
    """One of them is found somewhere in the text, as it is before anything is struck out."""


EVERYTHING = Match()


class Rule(Table):
    """Gives the alerts that fit a severity and a category."""

    name: str
    pattern: Some[TextPattern] | None = None
    """What `match.text` is, for short."""
    match: Match = EVERYTHING
    severity: KnownAlertSeverity | None = None
    """None: the worker's stays."""
    category: str | None = None
    """None: the rule's name."""

    @model_validator(mode="after")
    def _decides_what_it_does_not_ask_for(self) -> Self:
        if self.match.severity or self.match.category:
            raise ValueError("a match without severity and category, which are what a rule decides")
        if self.pattern is not None and self.match.text is not None:
            raise ValueError("one of pattern and match.text, not both")
        if self.pattern is None and self.match == EVERYTHING:
            raise ValueError("a pattern, or a match that says something: it would take every alert")
        return self


class Route(Table):
    """Sends the alerts that fit to some destinations."""

    name: str | None = None
    match: Match = EVERYTHING
    to: Some[str]
    text: Annotated[TextLeaving, PlainValidator(_text_leaving)] = TextLeaving()


class Mute(Table):
    """Keeps the alerts that fit from everybody, or from some, until a day."""

    match: Match
    to: Some[str] | None = None
    """Destinations; None: all."""
    until: AwareDatetime
    why: str


class Redaction(Table):
    """What is struck out."""

    defaults: tuple[Detector, ...] = get_args(Detector)
    patterns: tuple[TextPattern, ...] = ()


class Config(Table):
    """The whole file."""

    destinations: dict[DestinationName, DestinationOptions] = Field(default_factory=dict)
    shipped_rules: bool | tuple[str, ...] = True
    """Whether the rules that ship are asked after the file's own; or the names of those that are."""
    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()
    mutes: tuple[Mute, ...] = ()
    redaction: Redaction = Redaction()
