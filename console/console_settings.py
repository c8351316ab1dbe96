"""Settings of the console: those of a worker and of the archive, and its own `DELTALOOM_CONSOLE_*`."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import NoDecode

from archive.archive_settings import ArchiveSettings
from service.settings import host_and_port, is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _listening(text: str) -> str:
    host_and_port(text)
    return text


def _base_path(text: str) -> str:
    if not re.fullmatch(r"/([A-Za-z0-9_~-][A-Za-z0-9._~-]*/)*", text if text.endswith("/") else f"{text}/"):
        raise ValueError("a path like / or /deltaloom/, of letters, digits and ._~-")
    return text if text.endswith("/") else f"{text}/"


def _header(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9-]{1,100}", name):
        raise ValueError("the name of a header, of letters, digits and -")
    return name


def _networks(text: str) -> list[Network]:
    return [ipaddress.ip_network(each.strip()) for each in text.split(",")]


def _network_list(text: str) -> str:
    try:
        return ",".join(map(str, _networks(text)))
    except ValueError:
        raise ValueError("addresses or networks, like 10.0.0.5 or 10.0.0.0/24, separated by commas") from None


def _origin(text: str | None) -> str | None:
    if text is None:
        return None
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("scheme and host, like https://console.example.com")
    return f"{parts.scheme}://{parts.netloc.lower()}"


class ConsoleSettings(ArchiveSettings):
    """The settings of `deltaloom console`. Times are in seconds, sizes in bytes."""

    console_listen: Annotated[str, NoDecode, AfterValidator(_listening)] = Field(
        default="127.0.0.1:8790",
        description="Address of the console. One that is not of this machine needs "
        "`DELTALOOM_CONSOLE_TOKEN_FILE` or `DELTALOOM_CONSOLE_USER_HEADER`.",
    )
    console_base_path: Annotated[str, NoDecode, AfterValidator(_base_path)] = Field(
        default="/", description="Path of the console behind a proxy, like `/deltaloom/`."
    )
    console_origin: Annotated[str | None, NoDecode, AfterValidator(_origin)] = Field(
        default=None,
        description="Scheme and host that browsers see, like `https://console.example.com`, if a proxy "
        "changes them.",
    )
    console_token_file: Path | None = Field(
        default=None,
        description="File with the tokens of users: a line for each, `name:token`, or a token alone.",
    )
    console_user_header: Annotated[str | None, NoDecode, AfterValidator(_header)] = Field(
        default=None, description="Header in which a proxy that has authenticated the user gives the name."
    )
    console_trusted_proxies: Annotated[str, NoDecode, AfterValidator(_network_list)] = Field(
        default="127.0.0.1,::1",
        description="Addresses or networks of the proxies whose header is believed, separated by commas.",
    )
    console_texts: Literal["shown", "hidden"] = Field(
        default="shown",
        description="`hidden`: show the words of models only on request, and record each request.",
    )
    console_looks_file: Path | None = Field(
        default=None,
        description="File to which a line is added for each look at a response; unset: the archive's table, "
        "if there is an archive.",
    )
    console_max_streams: int = Field(
        default=100, ge=1, le=10_000, description="Maximum pages that watch responses at the same time."
    )
    console_trace_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^{}\s]*\{trace_id\}[^{}\s]*$",
        description="Address of a trace, like `https://jaeger.example.com/trace/{trace_id}`, for links.",
    )

    @model_validator(mode="after")
    def _check_console(self) -> Self:
        if self.console_token_file is not None and self.console_user_header is not None:
            raise ValueError(
                "DELTALOOM_CONSOLE_TOKEN_FILE and DELTALOOM_CONSOLE_USER_HEADER: set one of them; a proxy "
                "that authenticates users needs no tokens"
            )
        host, _ = host_and_port(self.console_listen)
        if not self.authenticates and not is_loopback(host):
            raise ValueError(
                f"DELTALOOM_CONSOLE_LISTEN={self.console_listen!r} is not allowed without authentication: "
                "set DELTALOOM_CONSOLE_TOKEN_FILE, or DELTALOOM_CONSOLE_USER_HEADER behind a proxy, or use "
                "127.0.0.1"
            )
        return self

    @property
    def authenticates(self) -> bool:
        """True if users have to say who they are."""
        return self.console_token_file is not None or self.console_user_header is not None

    @property
    def trusted_networks(self) -> Sequence[Network]:
        """The networks of the trusted proxies."""
        return _networks(self.console_trusted_proxies)

    @property
    def has_archive(self) -> bool:
        """True if the environment names an archive."""
        return "archive_url" in self.model_fields_set
