"""Options that the tables `[destinations.NAME]` of `alerts.toml` share; each type adds its own in its file.

The tables contain no secrets, only their locations: `…_env` names an environment variable, `…_file` a file
(`service/alerts/destinations/secrets.py` reads them). Times are in seconds.
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

from service.alerts.grouping_key import GroupField

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
"""Alert fields allowed in a link, as in `https://console.example/responses/{response_id}`."""

WHOLE_LINK = "{reference}"
"""Link template for producers that send a URL as the reference."""


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
    """Return whether a string is an HTTP or HTTPS URL with a host."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if it is not a valid port
    except ValueError:
        return False
    plain = url.isprintable() and " " not in url
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def _web_address(url: str) -> str:
    """Return a valid URL.

    Raises:
        ValueError: the URL is not valid; the message does not repeat it, as it may contain a password.
    """
    if not is_web_address(url):
        raise ValueError("a URL that starts with https:// or http://")
    if "@" in urlsplit(url).netloc:
        raise ValueError(
            "a URL without user and password; they are secrets, so put the URL into url_env or url_file"
        )
    return url


def _never_in_file(_value: Any, info: ValidationInfo) -> None:
    raise ValueError(
        f"nothing: it is a secret, and belongs into an environment variable named by {info.field_name}_env, "
        f"or into a file named by {info.field_name}_file"
    )


def _network(value: Any) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value))
    except ValueError:
        raise ValueError("an address or a network, like 10.1.2.3, 10.0.0.0/8 or fd00::/8") from None


def one_or_more(value: Any) -> Any:
    """Return a single string as a tuple, and any other value unchanged."""
    return (value,) if isinstance(value, str) else value


NeverInFile = Annotated[None, BeforeValidator(_never_in_file)]
"""Field for a secret that people try to write into the file; the error names the right place."""
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Name of an environment variable."""
Variables = Annotated[tuple[Variable, ...], BeforeValidator(one_or_more)]
Files = Annotated[tuple[Path, ...], BeforeValidator(one_or_more)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Link = Annotated[str, AfterValidator(_link)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]


class Table(BaseModel):
    """A table of the file. Unknown keys are errors, and errors do not repeat values."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True, str_min_length=1
    )


class RateLimit(Table):
    """A limit on the rate of messages; messages beyond it wait."""

    per_minute: FiniteFloat = Field(gt=0)
    burst: int = Field(default=10, ge=1)
    """Number of messages that may be sent at once after a quiet time."""


class Grouping(Table):
    """Settings for combining similar alerts into digests."""

    by: tuple[GroupField, ...] = ("category", "model")
    """Fields that similar alerts have in common; if empty, all alerts of the destination are similar."""
    window: FiniteFloat = Field(default=60, gt=0, le=86400)
    """Length of a window in seconds, from its first alert."""
    from_: int = Field(default=5, ge=1, alias="from")
    """Number, within its window, of the first alert held for the digest; earlier ones are sent at once."""


class CommonOptions(Table):
    """Options common to all destinations."""

    rate_limit: RateLimit | None = None
    group: Grouping | None = None
    give_up_after: FiniteFloat = Field(default=86400, gt=0, le=86400)
    """Seconds after an alert was written at which its delivery is given up. The time is that of its id; one
    in the future counts as the present."""
    begin: Literal["now", "all"] = "now"
    """First alert for a new destination: the next one to arrive, or the oldest in the stream."""
    heartbeat: bool = False
    """True to send the heartbeats of `deltaloom alerts heartbeat` to the destination."""
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
    """Options common to destinations that use HTTP."""

    timeout: FiniteFloat = Field(default=10, gt=0, le=60)
    """Seconds for one attempt, from resolving the name to the end of the answer."""
    allow_addresses: tuple[Network, ...] = ()
    """Networks that may be connected to although they are not public."""
    max_retry_after: FiniteFloat = Field(default=300, gt=0, le=86400)
    """Maximum seconds of a pause that the destination asks for (`Retry-After`)."""
    ca_file: Path | None = None
    """PEM file of trusted certificate authorities, which replaces the system's."""


Resolve = Literal["spikes", "all"]
"""Alerts whose end closes an incident: spikes only, or also refusals, which end seconds after they began,
perhaps before anybody was notified."""


def exactly_one(options: CommonOptions, *names: str) -> None:
    """Check that exactly one of these options is given, as a model's validator.

    Raises:
        ValueError: none or several are given.
    """
    given = [name for name in names if getattr(options, name) is not None]
    if len(given) != 1:
        raise ValueError(f"one of {', '.join(names)}, not {' and '.join(given) or 'none'}")
