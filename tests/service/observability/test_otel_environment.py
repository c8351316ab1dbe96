"""Test which variables turn traces on, and where they then go."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from service.observability.otel_environment import trace_target

if TYPE_CHECKING:
    from pathlib import Path

ALL, TRACES = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"
BASE = {f"{ALL}ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {f"{ALL}ENDPOINT": " "},
        {f"{ALL}HEADERS": "a=b", "OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"},
        BASE | {"OTEL_SDK_DISABLED": "True"},
        BASE | {"OTEL_TRACES_EXPORTER": "none"},
        {f"{ALL}METRICS_ENDPOINT": "http://collector:4318/v1/metrics"},
    ],
)
def test_off(environment: dict[str, str]) -> None:
    """Send no traces unless a variable asks for them, or if one turns them off."""
    assert trace_target(environment) is None


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        (BASE, "http://collector:4318/v1/traces"),
        ({f"{ALL}ENDPOINT": "https://c/otlp/"}, "https://c/otlp/v1/traces"),
        (BASE | {f"{TRACES}ENDPOINT": "http://other/path"}, "http://other/path"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
        (
            BASE | {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "no"},
            "http://collector:4318/v1/traces",
        ),
        (BASE | {f"{ALL}PROTOCOL": "grpc", f"{TRACES}PROTOCOL": "http/protobuf"}, None),
    ],
)
def test_on(environment: dict[str, str], url: str | None) -> None:
    """Follow the specification for the URL."""
    target = trace_target(environment)
    assert target is not None
    assert target.problem is None
    assert target.url == (url or "http://collector:4318/v1/traces")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER=console is not supported: otlp or none"),
        ({f"{ALL}PROTOCOL": "grpc"}, f"{ALL}PROTOCOL=grpc is not supported: http/protobuf"),
        ({f"{TRACES}PROTOCOL": "http/json"}, f"{TRACES}PROTOCOL=http/json is not supported"),
        ({f"{TRACES}ENDPOINT": "collector:hush"}, "the endpoint (not shown) is no URL"),
        ({f"{TRACES}ENDPOINT": "http://u:hush@[collector"}, "the endpoint (not shown) is no URL"),
        ({f"{ALL}HEADERS": "a=hush", f"{ALL}HEADERS_FILE": "/hush"}, "are both set"),
        ({f"{TRACES}HEADERS_FILE": "/missing"}, "No such file"),
    ],
)
def test_problem(more: dict[str, str], problem: str) -> None:
    """Explain what cannot be used, without a secret."""
    target = trace_target(BASE | more)
    assert target is not None
    assert target.problem is not None
    assert problem in target.problem
    assert "hush" not in target.problem


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the extra if it is not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    target = trace_target(BASE)
    assert target is not None
    assert target.problem is not None
    assert "deltaloom-worker[otel]" in target.problem


def test_headers_of_traces_come_first(tmp_path: Path) -> None:
    """Take the headers of traces, from a variable or a file, before those of all signals."""
    file = tmp_path / "headers"
    file.write_text("x=traces\n")
    of_all = {f"{ALL}HEADERS": "x=all"}
    for more, headers in (({}, "x=all"), ({f"{TRACES}HEADERS_FILE": str(file)}, "x=traces")):
        target = trace_target(BASE | of_all | more)
        assert target is not None
        assert target.headers == headers


def test_shown_url_has_no_secret() -> None:
    """Show neither login nor options."""
    target = trace_target({f"{TRACES}ENDPOINT": "https://user:hush@collector:4318/v1/traces?key=hush#hush"})
    assert target is not None
    assert target.shown == "https://collector:4318/v1/traces"
