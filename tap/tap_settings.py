"""Settings of the tap: those of a worker that concern Redis, logs and HTTP, and its own `DELTALOOM_TAP_*`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, FiniteFloat, model_validator
from pydantic_settings import NoDecode

from service.settings import Settings, host_and_port
from tap.heads import ContextHeaders

if TYPE_CHECKING:
    from typing import Self

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _listening(text: str) -> str:
    host_and_port(text)
    return text


def _local_unless_named(text: str | None) -> str | None:
    """Return an address; one that is only a port is of this machine."""
    if text is None:
        return None
    return _listening(f"127.0.0.1:{text}" if text.isdecimal() else text)


def _header(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,100}", name):
        message = "the name of a header, of letters, digits and -"
        raise ValueError(message)
    return name.lower()


_Header = Annotated[str, AfterValidator(_header)]


class TapSettings(Settings):
    """The settings of `deltaloom tap`. Times are in seconds, sizes in bytes."""

    tap_listen: Annotated[str, NoDecode, AfterValidator(_listening)] = Field(
        default="127.0.0.1:8787", description="Address of the proxy, like `0.0.0.0:8787`."
    )
    tap_upstreams: Path = Field(
        default=Path("upstreams.toml"),
        description="File of the upstreams; no other host is ever connected to.",
    )
    tap_tls_certificate: Path | None = Field(
        default=None, description="PEM file with the certificates of the proxy; unset: plain HTTP."
    )
    tap_tls_key: Path | None = Field(default=None, description="PEM file with the certificate's key.")
    tap_ingest: Annotated[str | None, NoDecode, AfterValidator(_local_unless_named)] = Field(
        default=None,
        description="Address that takes copies of streams, `POST /ingest/{dialect}`. A port alone, like "
        "`8788`, is one of this machine only; unset: none.",
    )
    tap_ingest_token_file: Path | None = Field(
        default=None,
        description="File with the token that the ingest requires; without it, its address must be one of "
        "this machine.",
    )
    tap_tenant_header: _Header = Field(
        default="x-deltaloom-tenant",
        description="Header of a request with the tenant. It is removed before the request is passed on, as "
        "are the next two.",
    )
    tap_safety_identifier_header: _Header = Field(
        default="x-deltaloom-safety-identifier", description="Header with the safety identifier."
    )
    tap_reference_header: _Header = Field(
        default="x-deltaloom-reference", description="Header with the reference."
    )
    tap_max_connections: int = Field(
        default=2048, ge=1, le=100_000, description="Maximum connections of a process; others are closed."
    )
    tap_max_header_bytes: int = Field(
        default=16 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Maximum bytes of a request's first line, and of each header; there may be 128.",
    )
    tap_max_body_bytes: int = Field(
        default=128 * 1024 * 1024, ge=1024, description="Maximum bytes of a request's body."
    )
    tap_client_timeout: FiniteFloat = Field(
        default=60,
        gt=0,
        le=3600,
        description="Seconds in which a client has to send a head, or more of a body, or to read more of an "
        "answer that waits for it.",
    )
    tap_body_timeout: FiniteFloat = Field(
        default=600,
        gt=0,
        le=86_400,
        description="Seconds for which the tap waits for a client in all, until a request's body is whole.",
    )
    tap_shutdown_timeout: FiniteFloat = Field(
        default=30, ge=0, le=3600, description="Seconds in which streams may end after SIGTERM."
    )
    tap_copy_buffer: int = Field(
        default=16 * 1024 * 1024,
        ge=64 * 1024,
        description="Maximum bytes that wait for the copier; more are dropped and counted.",
    )
    tap_publish_buffer: int = Field(
        default=16 * 1024 * 1024,
        ge=64 * 1024,
        description="Maximum bytes of events that wait for Redis; more are dropped and counted.",
    )

    @model_validator(mode="after")
    def _check_tap(self) -> Self:
        if (self.tap_tls_certificate is None) != (self.tap_tls_key is None):
            raise ValueError("DELTALOOM_TAP_TLS_CERTIFICATE and DELTALOOM_TAP_TLS_KEY: set both, or neither")
        if self.tap_ingest and not self.tap_ingest_token_file:
            host, _ = host_and_port(self.tap_ingest)
            if host not in _LOOPBACK:
                raise ValueError(
                    f"DELTALOOM_TAP_INGEST={self.tap_ingest!r} is not allowed without "
                    "DELTALOOM_TAP_INGEST_TOKEN_FILE: anybody could publish; name the file, or use 127.0.0.1"
                )
        if len(set(self.context_headers)) != len(self.context_headers):
            raise ValueError("DELTALOOM_TAP_…_HEADER: name a different header for each context field")
        return self

    @property
    def context_headers(self) -> ContextHeaders:
        """The headers with the context of a response."""
        return ContextHeaders(
            self.tap_tenant_header, self.tap_safety_identifier_header, self.tap_reference_header
        )
