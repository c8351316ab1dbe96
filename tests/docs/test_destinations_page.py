"""Test the messages and tables in docs/alerting.md against the destinations."""

from __future__ import annotations

import json
import tomllib
from typing import Any, get_args

import pytest

from service.alerts.destinations import body
from service.alerts.destinations.alertmanager import DIGEST, NAMES, AlertmanagerOptions
from service.alerts.destinations.apprise_ import AppriseOptions
from service.alerts.destinations.options import CommonOptions, HttpOptions
from service.alerts.destinations.pagerduty import PagerDutyOptions, event
from service.alerts.destinations.registry import TYPES, create_destination
from tests.docs.pages import ROOT, Page, quoted
from tests.docs.test_slack_picture import LINK, MESSAGES
from tests.receivers import receiving

ALERTING = Page(ROOT / "docs/alerting.md")
SLACK_URL = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
"""A URL that webhooks, Slack and apprise accept."""
SIGNING_SECRET = "whsec_" + "A" * 44
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
        destination = create_destination("monitoring", options, {})
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
        destination = create_destination("mail", AppriseOptions.model_validate(table), environment)
        await destination.deliver(FINISHED)
        await destination.aclose()
    sent = receiver.received[0].json
    shown = [block.text for block in ALERTING.blocks if block.language == "text"]
    assert f"{sent['title']}\n\n{sent['message']}\n" in shown


def test_the_keys_of_every_destination() -> None:
    """List the options that destinations have in common."""
    keys = [key for keys, *_ in ALERTING.table("Where alerts go") for key in quoted(keys)]
    common, http = list(CommonOptions.model_fields), list(HttpOptions.model_fields)
    assert keys == ["type", *common, *http[len(common) :]]


def test_every_type_is_listed() -> None:
    """List the types of destinations in the order of the registry."""
    ((_, _, types), *_) = ALERTING.table("Where alerts go")
    row = f'the row `type` of the table in {ALERTING.name}, section "Where alerts go",'
    missing = [name for name in TYPES if name not in quoted(types)]
    assert not missing, f"{row} lacks {missing}"
    assert quoted(types) == list(TYPES), f"{row} has another order than `TYPES`, or an unknown type"


def example_of(name: str) -> dict[str, Any]:
    """Return the page's first table of a type of destination."""
    blocks = [tomllib.loads(block.text) for block in ALERTING.blocks if block.language == "toml"]
    tables = [table for block in blocks for table in block.get("destinations", {}).values()]
    found = next((table for table in tables if table["type"] == name), None)
    assert found, f"{ALERTING.name} has no TOML example of a destination of type {name!r}"
    return dict(found)


@pytest.mark.parametrize("name", TYPES)
async def test_every_type_has_an_example_that_works(name: str) -> None:
    """Show a table of each type, of which a destination can be made."""
    table: dict[str, Any] = {}
    environment: dict[str, str] = {}
    for key, value in example_of(name).items():
        if key.endswith(("_env", "_file")):
            variable = key.removesuffix("_env").removesuffix("_file")
            table[f"{variable}_env"] = variable
            environment[variable] = SLACK_URL if variable == "url" else SIGNING_SECRET
        else:
            table[key] = value
    destination = create_destination("one", TYPES[name].options.model_validate(table), environment)
    assert destination.name == "one"
    await destination.aclose()
    await destination.aclose()  # closing twice must not fail


@pytest.mark.parametrize("name", TYPES)
def test_every_option_is_explained(name: str) -> None:
    """Mention each option of each type; `…_file` stands beside `…_env` for all of them."""
    common, own = HttpOptions.model_fields, TYPES[name].options.model_fields
    shown = " ".join([*ALERTING.code, *(block.text for block in ALERTING.blocks)])
    missing = [key for key in own if key not in common and key not in shown and not key.endswith("_file")]
    assert not missing, f"{ALERTING.name} does not explain {missing} of {name}"


def test_every_name_of_an_alert_is_listed() -> None:
    """List the names of alerts in Alertmanager."""
    assert {*NAMES.values(), DIGEST} <= set(ALERTING.code)
    assert get_args(AlertmanagerOptions.model_fields["resolve"].annotation) == ("spikes", "all")
