"""Test alerts that are written to the program's own log."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from service import logs
from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations.log import LogOptions
from service.alerts.destinations.registry import create_destination
from service.settings import Settings
from tests.notifications import TEXT, alert, digest, notification

if TYPE_CHECKING:
    from service.alerts.delivery import Notification


async def logged(sent: Notification, *, log_text: bool) -> dict[str, Any]:
    """Return the log line of a notification."""
    stream = io.StringIO()
    logs.configure(Settings(log_format="json", log_text=log_text), stream)
    destination = create_destination("audit", LogOptions(type="log"), {})
    assert await destination.deliver(sent) == Outcome(Verdict.DELIVERED, "written")
    await destination.aclose()
    line: dict[str, Any] = json.loads(stream.getvalue())
    return line


async def test_a_line_says_what_happened() -> None:
    """Log the headline, the severity and the ids."""
    line = await logged(notification(), log_text=False)
    assert line["event"] == "A model refuses · self-harm · gpt-4o · tenant acme"
    assert line["level"] == "critical"
    assert (line["destination"], line["notification"], line["response_id"]) == ("audit", "opened_1", "resp_1")


async def test_a_line_about_a_digest_has_its_counts() -> None:
    """Log a digest's counts and texts, and no single response."""
    line = await logged(digest(), log_text=True)
    assert line["event"] == "12 similar alerts · self-harm"
    assert line["counts"][0] == "9 times refusal.opened · gpt-4o"
    assert "response_id" not in line
    assert TEXT in line["text"]


async def test_an_explanation_is_logged_only_if_texts_are() -> None:
    """Log the provider's explanation only if texts may be logged, since it may quote a user."""
    sent = notification(alert(provider_explanation="About bombs."))
    assert "bombs" not in json.dumps(await logged(sent, log_text=False))
    assert (await logged(sent, log_text=True))["provider_explanation"] == "About bombs."


async def test_an_unknown_severity_is_a_warning() -> None:
    """Log an unknown severity as a warning, instead of failing."""
    assert (await logged(notification(severity="severe"), log_text=False))["level"] == "warning"


async def test_the_text_is_logged_only_if_texts_are() -> None:
    """Log the text only if texts may be logged."""
    assert TEXT not in json.dumps(await logged(notification(), log_text=False))
    assert TEXT not in json.dumps(await logged(digest(), log_text=False))
    assert (await logged(notification(), log_text=True))["text"] == TEXT
