"""Test the messages and tables in docs/alerting.md against the destinations."""

from __future__ import annotations

import json
from typing import Any, get_args

from service.alerts.destinations import body
from service.alerts.destinations.alertmanager import DIGEST, NAMES
from service.alerts.destinations.kinds import KINDS, made
from service.alerts.destinations.options import (
    AlertmanagerOptions,
    AppriseOptions,
    CommonOptions,
    HttpOptions,
    PagerDutyOptions,
)
from service.alerts.destinations.pagerduty import event
from tests.docs.pages import ROOT, Page, quoted
from tests.docs.test_slack_picture import LINK, MESSAGES
from tests.receivers import receiving

ALERTING = Page(ROOT / "docs/alerting.md")
FINISHED = MESSAGES[1][0]


def shown() -> dict[str, dict[str, Any]]:
    """Return the page's JSON blocks, each by a key that only it has."""
    blocks = [json.loads(block.text) for block in ALERTING.blocks if block.language == "json"]
    return {key: block for block in blocks for key in ("delivery", "routing_key", "labels") if key in block}


def test_the_body_of_a_webhook() -> None:
    """Show the body of a webhook."""
    assert shown()["delivery"] == body.as_object(FINISHED)


def test_the_event_for_pagerduty() -> None:
    """Show the event for PagerDuty."""
    table = {"type": "pagerduty", "routing_key_env": "KEY", "link": LINK}
    assert shown()["routing_key"] == event(FINISHED, PagerDutyOptions.model_validate(table), "…")


async def test_the_alert_for_an_alertmanager() -> None:
    """Show the alert for Alertmanager."""
    async with receiving() as receiver:
        table = {"type": "alertmanager", "url": receiver.url, "allow_addresses": ["127.0.0.1"], "link": LINK}
        options = AlertmanagerOptions.model_validate({**table, "labels": {"team": "trust-and-safety"}})
        destination = made("monitoring", options, {})
        await destination.deliver(FINISHED)
        await destination.aclose()
    (sent,) = receiver.received[0].json
    expected = shown()["labels"]
    del sent["endsAt"], expected["endsAt"]  # relative to the current time
    assert sent == expected


async def test_the_message_of_apprise() -> None:
    """Show the message of apprise."""
    async with receiving() as receiver:
        table = {"type": "apprise", "url_env": "URL", "allow_addresses": ["127.0.0.1"], "link": LINK}
        environment = {"URL": f"json://127.0.0.1:{receiver.port}"}
        destination = made("mail", AppriseOptions.model_validate(table), environment)
        await destination.deliver(FINISHED)
        await destination.aclose()
    sent = receiver.received[0].json
    shown = [block.text for block in ALERTING.blocks if block.language == "text"]
    assert f"{sent['title']}\n\n{sent['message']}\n" in shown


def test_the_keys_of_every_destination() -> None:
    """List the options of destinations and their kinds."""
    keys = [key for keys, *_ in ALERTING.table("Where alerts go") for key in quoted(keys)]
    common, http = list(CommonOptions.model_fields), list(HttpOptions.model_fields)
    assert keys == ["type", *common, *http[len(common) :]]
    ((_, _, kinds), *_) = ALERTING.table("Where alerts go")
    assert quoted(kinds) == list(KINDS)


def test_every_name_of_an_alert_is_listed() -> None:
    """List the names of alerts in Alertmanager."""
    assert {*NAMES.values(), DIGEST} <= set(ALERTING.code)
    assert get_args(AlertmanagerOptions.model_fields["resolve"].annotation) == ("spikes", "all")
