"""What `deltaloom check` finds in this installation."""

from __future__ import annotations

import pytest

from service.cli import findings
from service.settings import Settings


def test_import_names() -> None:
    """Another distribution's `service` or `handlers` would be imported in place of ours."""
    ours = {"service": ["deltaloom-worker"], "deltaloom": ["deltaloom"]}
    assert findings.import_names(ours).state == "ok"
    foreign = findings.import_names({**ours, "handlers": ["deltaloom-worker", "other"]})
    assert foreign.state == "warn"
    assert "handlers is also of other" in foreign.says


@pytest.mark.parametrize(("names", "state"), [(None, "ok"), ("refusal,nix", "fail")])
def test_handlers(names: str | None, state: str) -> None:
    """A worker that cannot start with these settings would be called healthy."""
    assert findings.handlers(Settings(handlers=names)).state == state
