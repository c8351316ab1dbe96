"""Read from OpenTelemetry's standard variables whether traces are wanted, and where they go.

This module imports nothing of OpenTelemetry, so a process without traces does not either.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from service.secret_files import SecretFileError, secret_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALL, _TRACES = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"
_DEFAULT_ENDPOINT: Final = "http://localhost:4318"
_PATH: Final = "/v1/traces"
_PROTOCOL: Final = "http/protobuf"
_EXPORTER: Final = "otlp"
_PACKAGE: Final = "opentelemetry.exporter.otlp.proto.http"


class TraceTarget(NamedTuple):
    """The receiver of traces."""

    url: str
    """URL that spans are posted to. It may have a secret."""
    headers: str
    """Headers of each request, as `name=value,…`; empty for none. They may have secrets."""
    problem: str | None
    """The reason why no traces can be sent, with the remedy and without secrets; None if they can."""

    @property
    def shown(self) -> str:
        """The URL without parts that may be secret."""
        try:
            parts = urlsplit(self.url)
        except ValueError:
            return "(not shown)"
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def trace_target(environment: Mapping[str, str]) -> TraceTarget | None:
    """Return the receiver of traces; None if no variable asks for traces, or one turns them off."""
    exporter = _value(environment, "OTEL_TRACES_EXPORTER")
    endpoint = _value(environment, f"{_TRACES}ENDPOINT")
    base = _value(environment, f"{_ALL}ENDPOINT")
    if _value(environment, "OTEL_SDK_DISABLED").lower() == "true" or exporter == "none":
        return None
    if not (exporter or endpoint or base):
        return None
    url = endpoint or (base or _DEFAULT_ENDPOINT).removesuffix("/") + _PATH
    try:
        headers = _headers(environment)
    except SecretFileError as error:
        return TraceTarget(url, "", str(error))
    return TraceTarget(url, headers, _problem(environment, exporter, url))


def _headers(environment: Mapping[str, str]) -> str:
    """Return the headers of traces, or else those of all signals; each may be in a file.

    Raises:
        SecretFileError: a file cannot be used.
    """
    names = (f"{_TRACES}HEADERS", f"{_ALL}HEADERS")
    return next(filter(None, (secret_of(name, environment) for name in names)), "")


def _problem(environment: Mapping[str, str], exporter: str, url: str) -> str | None:
    if exporter not in {"", _EXPORTER}:
        return f"OTEL_TRACES_EXPORTER={exporter} is not supported: {_EXPORTER} or none"
    for name in (f"{_TRACES}PROTOCOL", f"{_ALL}PROTOCOL"):
        if protocol := _value(environment, name):
            if protocol != _PROTOCOL:
                return f"{name}={protocol} is not supported: {_PROTOCOL} (collectors listen on port 4318)"
            break
    if not _is_http(url):
        return "the endpoint (not shown) is no URL like http://collector:4318"
    if not is_installed():
        return "the extra is not installed: pip install 'deltaloom-worker[otel]', or an image with it"
    return None


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_installed() -> bool:
    """Return whether the packages of the extra `otel` are installed."""
    try:
        return find_spec(_PACKAGE) is not None and find_spec("opentelemetry.sdk.trace") is not None
    except ModuleNotFoundError:
        return False


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip()
