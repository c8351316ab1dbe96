"""Test the findings of `deltaloom check` about this installation."""

from __future__ import annotations

import pytest

from service.cli import finding_table as findings
from service.settings import Settings


def test_import_names() -> None:
    """Warn of another distribution that installs packages of the same names."""
    ours = {"service": ["deltaloom-worker"], "deltaloom": ["deltaloom"]}
    assert findings.import_names(ours).state == "ok"
    foreign = findings.import_names({**ours, "handlers": ["deltaloom-worker", "other"]})
    assert foreign.state == "warn"
    assert "handlers is also of other" in foreign.says


@pytest.mark.parametrize(("names", "state"), [(None, "ok"), ("refusal,nix", "fail")])
def test_handlers(names: str | None, state: str) -> None:
    """Report an unknown handler as a failure, since the worker could not start."""
    assert findings.handlers(Settings(handlers=names)).state == state


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:hush@c:4318"}, [("ok", "go to http://c:4318/v1/traces")]),
        (
            {"OTEL_TRACES_EXPORTER": "console"},
            [("warn", "off: OTEL_TRACES_EXPORTER=console is not supported: otlp or none")],
        ),
    ],
)
def test_traces(variables: dict[str, str], found: list[tuple[str, str]]) -> None:
    """Say where traces go, or why they are off although a variable asks for them."""
    assert [(each.state, each.says) for each in findings.traces(variables)] == found
