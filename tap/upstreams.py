"""Read the file of upstreams, report all its mistakes, and find the upstream of a request.

[upstreams.openai]
url = "https://api.openai.com"

`/openai/v1/responses` then leads to `https://api.openai.com/v1/responses`. A request never leads to a host
that the file does not name: scheme, host and port come from the file alone.
"""

from __future__ import annotations

import re
import ssl
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
)

from service.alerts.deciding.findings import ConfigError, Finding, SourceLocations, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

MAX_FILE_BYTES: Final = 256 * 1024
"""Maximum size of the file."""


def _base(url: str) -> str:
    wrong = "a URL that starts with https:// or http://"
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ValueError(wrong) from None
    if not has_host or parts.scheme not in {"http", "https"} or not (url.isascii() and url.isprintable()):
        raise ValueError(wrong)
    if "@" in parts.netloc:
        raise ValueError("a URL without user and password; clients send their keys themselves")
    if parts.query or parts.fragment or "?" in url or "#" in url or " " in url:
        raise ValueError("a URL that ends with its path, such as https://api.openai.com/v1")
    return url.rstrip("/")


def _host(host: str) -> str:
    if not host.isascii() or not host.isprintable() or any(character in " /?#@" for character in host):
        raise ValueError("a host as clients name it, with its port unless that is the default one")
    return host.lower()


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Upstream(BaseModel):
    """A table `[upstreams.NAME]` of the file. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_min_length=1)

    url: Annotated[str, AfterValidator(_base)]
    """URL of the provider; the rest of a request's path is appended."""
    hosts: Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_as_list)] = ()
    """Values of the header `Host` that lead here with their whole path, in place of `/NAME/`."""
    provider: str | None = None
    """Name of the provider in the context; None for that of the dialect."""
    connect_timeout: FiniteFloat = Field(default=10, gt=0, le=300)
    """Maximum seconds to connect, with TLS."""
    idle_timeout: FiniteFloat = Field(default=600, gt=0, le=86400)
    """Seconds without a byte after which an answer is given up; models may think for minutes."""
    ca_file: Path | None = None
    """PEM file of trusted certificate authorities, which replaces the system's."""


_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]


class _UpstreamFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    upstreams: dict[_Name, Upstream] = Field(min_length=1)


class NamedUpstream:
    """An upstream with its name.

    Args:
        name: name of the upstream in the file.
        upstream: its table.
    """

    def __init__(self, name: str, upstream: Upstream) -> None:
        self.name = name
        self.upstream = upstream
        self.tls: ssl.SSLContext | bool = True
        """Verification of the upstream; True for the system's authorities."""
        self._has_path = bool(urlsplit(upstream.url).path)

    def trust(self) -> None:
        """Read the trusted authorities.

        Raises:
            OSError: the file cannot be read, or has no certificate.
        """
        if self.upstream.ca_file is not None:
            self.tls = ssl.create_default_context(cafile=str(self.upstream.ca_file))

    def url_of(self, rest: str) -> str | None:
        """Return the URL of a request; None if its path would leave the path of the upstream.

        Args:
            rest: the path after the upstream's name, with its query; empty, or from a `/` or `?` on.
        """
        path = unquote(rest.partition("?")[0])  # some servers decode a path before they resolve its steps
        if self._has_path and any(step.strip() in {".", ".."} for step in re.split(r"[/\\]", path)):
            return None
        return self.upstream.url + (rest if rest.startswith("/") else f"/{rest}")


class Upstreams:
    """The upstreams by path and host.

    Args:
        upstreams: the tables by name.
    """

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self.targets = {name: NamedUpstream(name, upstream) for name, upstream in upstreams.items()}
        self._by_host = {host: target for target in self.targets.values() for host in target.upstream.hosts}

    def find(self, host: str, raw_target: str) -> tuple[NamedUpstream, str] | None:
        """Return the upstream of a request and the rest of its path with the query; None if none is named.

        Args:
            host: the header `Host`.
            raw_target: path and query as they came. If it does not begin with `/`, it names a host: there is
                no upstream.
        """
        if not raw_target.startswith("/"):
            return None
        by_host = self._by_host.get(host.lower())
        if by_host is not None:
            return by_host, raw_target
        end = len(raw_target)
        for mark in "/?":
            found = raw_target.find(mark, 1)
            end = found if 0 < found < end else end
        target = self.targets.get(raw_target[1:end])
        return None if target is None else (target, raw_target[end:])


def load(path: Path) -> Upstreams:
    """Return the upstreams of a file.

    Raises:
        ConfigError: lists all mistakes, each with file, line, key and remedy.
    """
    text = _read(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [Finding(0, "", f"is not valid TOML: {error}")]) from None
    locations = SourceLocations(text)
    try:
        tables = _UpstreamFile.model_validate(document).upstreams
    except ValidationError as error:
        found = [_finding(details, locations) for details in error.errors(include_url=False)]
        raise ConfigError(str(path), found) from None
    upstreams = Upstreams(tables)
    wrong = [*_ambiguous(tables, locations), *_untrusted(upstreams, locations)]
    if wrong:
        raise ConfigError(str(path), wrong)
    return upstreams


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(str(path), [Finding(0, "", f"cannot be read: {error.strerror}")]) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(str(path), [Finding(0, "", f"has more than {MAX_FILE_BYTES} bytes")])
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(str(path), [Finding(0, "", "is not UTF-8, as TOML has to be")]) from None


def _ambiguous(tables: Mapping[str, Upstream], locations: SourceLocations) -> Iterator[Finding]:
    """Yield findings about hosts that lead to several upstreams."""
    seen: set[str] = set()
    for name, upstream in tables.items():
        for position, host in enumerate(upstream.hosts):
            if host in seen:
                path = ("upstreams", name, "hosts", position)
                yield locations.finding(path, f'"{host}" leads to another upstream already')
            seen.add(host)


def _untrusted(upstreams: Upstreams, locations: SourceLocations) -> Iterator[Finding]:
    """Yield findings about certificate authorities that cannot be read; read the others."""
    for name, target in upstreams.targets.items():
        try:
            target.trust()
        except OSError as error:
            path = ("upstreams", name, "ca_file")
            yield locations.finding(path, f"cannot be used: {error.strerror or error}")


def _finding(details: ErrorDetails, locations: SourceLocations) -> Finding:
    """Return the finding for an error of pydantic. It repeats no value, since that may be a secret."""
    loc = tuple(step for step in details["loc"] if step != "[key]")
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    match details["type"]:
        case "extra_forbidden":
            known = _UpstreamFile.model_fields if len(loc) == 1 else Upstream.model_fields
            message = f"is not known here{suggestion(str(loc[-1]), known)}"
        case "missing":
            message = "is missing"
        case "value_error":
            message = f"should be {message}"
        case "string_pattern_mismatch":
            message = "should be a name of letters, digits, - and _, since it begins the path of its requests"
    return locations.finding(loc, message)
