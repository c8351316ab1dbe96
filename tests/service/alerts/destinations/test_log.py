"""Alerts in this program's log."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from service import logs
from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations.kinds import made
from service.alerts.destinations.options import LogOptions
from service.settings import Settings
from tests.notifications import TEXT, alert, digest, notification

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.alerts.delivery import Notification


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Leave the loggers as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


async def logged(sent: Notification, *, log_text: bool) -> dict[str, Any]:
    """The line of one notification."""
    stream = io.StringIO()
    logs.configure(Settings(log_format="json", log_text=log_text), stream)
    destination = made("audit", LogOptions(type="log"), {})
    assert await destination.deliver(sent) == Outcome(Verdict.DELIVERED, "written")
    await destination.aclose()
    line: dict[str, Any] = json.loads(stream.getvalue())
    return line


async def test_a_line_says_what_happened() -> None:
    """Who reads only the log would not know."""
    line = await logged(notification(), log_text=False)
    assert line["event"] == "A model refuses · self-harm · gpt-4o · tenant acme"
    assert line["level"] == "critical"
    assert (line["destination"], line["notification"], line["response_id"]) == ("audit", "opened_1", "resp_1")


async def test_a_line_about_several_says_what_they_are() -> None:
    """It would name the first of them, and nothing of the rest."""
    line = await logged(digest(), log_text=True)
    assert line["event"] == "12 similar alerts · self-harm"
    assert line["counts"][0] == "9 times refusal.opened · gpt-4o"
    assert "response_id" not in line
    assert TEXT in line["text"]


async def test_an_explanation_is_in_it_only_where_the_log_may_have_texts() -> None:
    """What a user asked would stand in a log, in the provider's words."""
    sent = notification(alert(provider_explanation="About bombs."))
    assert "bombs" not in json.dumps(await logged(sent, log_text=False))
    assert (await logged(sent, log_text=True))["provider_explanation"] == "About bombs."


async def test_an_unknown_severity_is_a_warning() -> None:
    """A word of a later version would end the destination."""
    assert (await logged(notification(severity="severe"), log_text=False))["level"] == "warning"


async def test_the_text_is_in_it_only_where_the_log_may_have_it() -> None:
    """A log goes to more people than an alert does."""
    assert TEXT not in json.dumps(await logged(notification(), log_text=False))
    assert TEXT not in json.dumps(await logged(digest(), log_text=False))
    assert (await logged(notification(), log_text=True))["text"] == TEXT
