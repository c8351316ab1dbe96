"""Alerts and policies for the tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deltaloom import ModerationAlert, RefusalRate
from service.alerts.deciding.config import parse
from service.alerts.deciding.policy import Policy

if TYPE_CHECKING:
    from service.alerts.deciding.schema import Config

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def alert(text: str = "No.", phase: str = "refusal.opened", **changed: Any) -> ModerationAlert:
    """Return an alert about a refusal: `refusal.opened` or `refusal.finished`."""
    fields = {
        "type": f"deltaloom.{phase}",
        "id": f"{phase.rpartition('.')[2]}_1",
        "severity": "warning",
        "text": text,
        "kind": "refusal",
        "response_id": "resp_1",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 1,
        "tenant": "acme",
        "model": "gpt-x",
        "raised_at": NOW,
    }
    return ModerationAlert.model_validate({**fields, **changed})


def contradicted(text: str = "Yes.", **changed: Any) -> ModerationAlert:
    """Return an alert about another text for a finished part."""
    return alert(text, "text.contradicted", **{"severity": "info", **changed})


def stopped(phase: str, reason: str, **changed: Any) -> ModerationAlert:
    """Return an alert about a response that was `refused`, `filtered` or `blocked`."""
    no_part = {"kind": None, "output_index": None, "content_index": None, "item_id": None}
    return alert("", f"response.{phase}", reason=reason, **no_part, **changed)


def spike(phase: str = "refusal.spike", name: str = "gpt-x", **changed: Any) -> ModerationAlert:
    """Return an alert about a model's refusals: `refusal.spike` or `refusal.spike.ended`."""
    rate = RefusalRate(
        by="model",
        name=name,
        since=NOW,
        until=NOW,
        responses=100,
        refused=40,
        baseline_since=NOW,
        baseline_responses=1000,
        baseline_refused=10,
        score=20.0,
    )
    no_part = {
        "kind": None,
        "output_index": None,
        "content_index": None,
        "item_id": None,
        "response_id": None,
    }
    return alert("", phase, rate=rate, **no_part, **changed)


def config(toml: str) -> Config:
    """Return the configuration in a file with this content."""
    return parse(toml, "alerts.toml")


def policy(toml: str) -> Policy:
    """Return the policy in a file with this content."""
    return Policy(config(toml))
