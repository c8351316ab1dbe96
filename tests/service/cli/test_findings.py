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
