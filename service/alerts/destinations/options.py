"""What a table `[destinations.NAME]` of `alerts.toml` may say: one model for each `type`.

Secrets are not among it. Where one is needed, the table says where to find it: `…_env` names an environment
variable, `…_file` a file (`service/alerts/destinations/secrets.py` reads them). Times are in seconds.
"""

from __future__ import annotations

import string
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainValidator,
    ValidationInfo,
    model_validator,
)

if TYPE_CHECKING:
    from typing import Any, Self

LINK_FIELDS = (
    "reference",
    "response_id",
    "item_id",
    "id",
    "kind",
    "tenant",
    "model",
    "provider",
    "upstream_response_id",
    "source",
)
"""What of an alert can stand in a link, as in `https://console.example/responses/{response_id}`."""

WHOLE_LINK = "{reference}"
"""The link for producers that give a URL as the reference."""


def _link(template: str) -> str:
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template)
        ]
    except ValueError:
        raise ValueError("a link whose braces match") from None
    if any(
        name is not None and (name not in LINK_FIELDS or spec or conversion)
        for name, spec, conversion in fields
    ):
        raise ValueError(f"a link in which only these stand in braces: {', '.join(LINK_FIELDS)}")
    if template == WHOLE_LINK:
        return template
    try:
        address = _web_address(template)
    except ValueError as error:
        raise ValueError(f"{error}; or {WHOLE_LINK} alone") from None
    if (urlsplit(address).hostname or "").endswith("}"):
        raise ValueError("a link whose host ends as written here: a value at its end could lead anywhere")
    return address


def is_web_address(url: str) -> bool:
    """Whether it is an URL of HTTP, with a host."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # which may be none
    except ValueError:
        return False
    plain = url.isprintable() and " " not in url
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def _web_address(url: str) -> str:
    """`ValueError` says nothing of the URL: somebody may have put a password into it."""
    if not is_web_address(url):
        raise ValueError("an URL that starts with https:// or http://")
    if "@" in urlsplit(url).netloc:
        raise ValueError(
            "an URL without user and password; they are secrets, so the URL belongs into url_env or url_file"
        )
    return url


def _not_here(_value: Any, info: ValidationInfo) -> None:
    raise ValueError(
        f"nothing: it is a secret, and belongs into an environment variable named by {info.field_name}_env, "
        f"or into a file named by {info.field_name}_file"
    )


def _network(value: Any) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value))
    except ValueError:
        raise ValueError("an address or a network, like 10.1.2.3, 10.0.0.0/8 or fd00::/8") from None


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


NotHere = Annotated[None, BeforeValidator(_not_here)]
"""A secret that people try to write into the file: the error says where it belongs."""
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable."""
Variables = Annotated[tuple[Variable, ...], BeforeValidator(_one_or_more)]
Files = Annotated[tuple[Path, ...], BeforeValidator(_one_or_more)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Link = Annotated[str, AfterValidator(_link)]
LabelName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]


class Table(BaseModel):
    """A table of the file: what it does not know is a mistake, and what is wrong is not repeated."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True, str_min_length=1
    )


class RateLimit(Table):
    """At most so many messages; what is more waits."""

    per_minute: FiniteFloat = Field(gt=0)
    burst: int = Field(default=10, ge=1)
    """How many may go at once after a quiet time."""


GroupField = Literal[
    "category",
    "severity",
    "rule",
    "route",
    "phase",
    "kind",
    "tenant",
    "model",
    "provider",
    "status",
    "reason",
    "reason_class",
]


class Grouping(Table):
    """When similar alerts become one digest."""

    by: tuple[GroupField, ...] = ("category", "model")
    """What alerts have in common to be similar; nothing: all of the destination's are."""
    window: FiniteFloat = Field(default=60, gt=0, le=86400)
    """Seconds from the first of them."""
    from_: int = Field(default=5, ge=1, alias="from")
    """Which of a window is the first to wait for the digest; those before it go out at once."""


class CommonOptions(Table):
    """What every destination has."""

    rate_limit: RateLimit | None = None
    group: Grouping | None = None
    give_up_after: FiniteFloat = Field(default=86400, gt=0, le=86400)
    """From when the alert was written."""
    begin: Literal["now", "all"] = "now"
    """Where a destination that is new begins: with the next alert, or with the oldest there is."""
    link: Link | None = None
    """A link to more about the response: a URL with `LINK_FIELDS` in braces, or `WHOLE_LINK`."""

    @model_validator(mode="after")
    def _sends_what_it_holds(self) -> Self:
        if self.group is not None and self.group.window >= self.give_up_after:
            raise ValueError(
                "a group.window shorter than give_up_after: what it holds would be given up, not sent"
            )
        return self


class HttpOptions(CommonOptions):
    """What every destination has that is spoken to by HTTP."""

    timeout: FiniteFloat = Field(default=10, gt=0, le=60)
    """For one attempt, from looking up the name to the end of the answer."""
    allow_addresses: tuple[Network, ...] = ()
    """Networks that are not the public internet and may be connected to all the same."""
    max_retry_after: FiniteFloat = Field(default=300, gt=0, le=86400)
    """The longest pause that the destination gets if it asks for one (`Retry-After`)."""
    ca_file: Path | None = None
    """Certificates of authorities to trust, PEM, in place of the system's."""


class WebhookOptions(HttpOptions):
    """Any server that takes a signed POST, as Standard Webhooks has it."""

    type: Literal["webhook"]
    url: WebAddress | None = None
    url_env: Variable | None = None
    url_file: Path | None = None
    secret: NotHere = None
    secret_env: Variables = ()
    """One or several: each signs, so that a receiver can change from one to the next in its own time."""
    secret_file: Files = ()
    envelope: Literal["none", "cloudevents"] = "none"
    source: str = "deltaloom"
    """Who it comes from: the attribute `source` of a CloudEvent, an URI reference."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        _exactly_one(self, "url", "url_env", "url_file")
        if not self.secret_env and not self.secret_file:
            raise ValueError("a secret to sign with: secret_env or secret_file")
        return self


class SlackOptions(HttpOptions):
    """A channel, by an incoming webhook."""

    type: Literal["slack"]
    url: NotHere = None
    url_env: Variable | None = None
    url_file: Path | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        _exactly_one(self, "url_env", "url_file")
        return self


Resolve = Literal["spikes", "all"]
"""What an ending resolves: spikes only, or also a refusal, which ends seconds after it began - perhaps before
anybody was told of it."""


class PagerDutyOptions(HttpOptions):
    """A service, by the Events API v2."""

    type: Literal["pagerduty"]
    url: WebAddress = "https://events.pagerduty.com/v2/enqueue"
    """Another one for the service region EU: `https://events.eu.pagerduty.com/v2/enqueue`."""
    routing_key: NotHere = None
    routing_key_env: Variable | None = None
    routing_key_file: Path | None = None
    source: str = "deltaloom"
    dedup_by: tuple[GroupField, ...] = ()
    """One incident for all alerts that have these in common; nothing: one for each text."""
    resolve: Resolve = "spikes"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        _exactly_one(self, "routing_key_env", "routing_key_file")
        if self.dedup_by and self.resolve == "all":
            raise ValueError(
                'dedup_by or resolve = "all": one refusal that ends must not close an incident of several'
            )
        return self


class AlertmanagerOptions(HttpOptions):
    """A Prometheus Alertmanager, by its API v2."""

    type: Literal["alertmanager"]
    url: WebAddress | None = None
    """Without `/api/v2/alerts`."""
    url_env: Variable | None = None
    url_file: Path | None = None
    authorization: NotHere = None
    authorization_env: Variable | None = None
    """The whole header's value, like `Bearer …`."""
    authorization_file: Path | None = None
    labels: dict[LabelName, str] = Field(default_factory=dict)
    """More labels, for the routes of the Alertmanager."""
    firing_for: FiniteFloat = Field(default=300, gt=0, le=86400)
    """How long an alert about one text fires: it has to be longer than the `group_wait` there."""
    resolve: Resolve = "spikes"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        _exactly_one(self, "url", "url_env", "url_file")
        if self.authorization_env and self.authorization_file:
            raise ValueError("one of authorization_env, authorization_file, not both")
        return self


class AppriseOptions(CommonOptions):
    """Everything else: mail, Teams, Discord, Telegram …, as the library apprise knows them."""

    type: Literal["apprise"]
    url: NotHere = None
    url_env: Variable | None = None
    """One apprise URL."""
    url_file: Path | None = None
    timeout: FiniteFloat = Field(default=30, gt=0, le=120)
    """For one attempt."""
    allow_addresses: tuple[Network, ...] = ()

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        _exactly_one(self, "url_env", "url_file")
        return self


class LogOptions(CommonOptions):
    """A line in this program's log; a text is in it only where `DELTALOOM_LOG_TEXT=true` allows it."""

    type: Literal["log"]


class CommandOptions(CommonOptions):
    """A program that gets the alert on its standard input."""

    type: Literal["command"]
    command: tuple[str, ...] = Field(min_length=1)
    """The program and its arguments; no shell reads them."""
    environment: Variables = ()
    """Variables handed on to it, beside `PATH`, `HOME`, `LANG` and `TZ`."""
    timeout: FiniteFloat = Field(default=10, gt=0, le=300)


DestinationOptions = Annotated[
    WebhookOptions
    | SlackOptions
    | PagerDutyOptions
    | AlertmanagerOptions
    | AppriseOptions
    | LogOptions
    | CommandOptions,
    Field(discriminator="type"),
]


def _exactly_one(options: CommonOptions, *names: str) -> None:
    given = [name for name in names if getattr(options, name) is not None]
    if len(given) != 1:
        raise ValueError(f"one of {', '.join(names)}, not {' and '.join(given) or 'none'}")
