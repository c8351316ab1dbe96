"""Test alerts of later versions end to end: any string in any open field."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from deltaloom import ModerationAlert
from service.alert_parsing import parse_alert
from service.alerts.deciding.explanation import explain
from service.alerts.delivery import Notification, Verdict
from service.alerts.destinations import body, pagerduty, slack
from service.alerts.destinations.alertmanager import labels_of
from service.alerts.destinations.pagerduty import PagerDutyOptions
from service.alerts.destinations.registry import create_destination
from tests.notifications import OPEN_FIELDS
from tests.receivers import receiving
from tests.service.alerts.made import alert, policy
from tests.webhook_receiver import SECRET

if TYPE_CHECKING:
    from service.alerts.deciding.policy import Policy
    from service.alerts.destinations.options import CommonOptions
    from tests.receivers import Receiver

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ENVIRONMENT = {"SECRET": SECRET}
ROUTES = """
[[routes]]
match = { phase = ["opened", "finished"] }
to = ["hook", "program"]
text = "full"
"""
LINK = "https://portal.example/{reference}/{response_id}"
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "\x00",
        "\u202e",
        "\r\n",
        "{reference}",
        "deltaloom.",
        "..",
        " ",
        "%s",
        "<!channel>",
        "javascript:alert(1)",
    ]
)


def written(fields: dict[str, str]) -> str:
    """Return the JSON of an alert with these fields and an unknown one."""
    return json.dumps({**alert().model_dump(mode="json"), "added_later": {"deep": [1]}, **fields})


def policy_for(receiver: Receiver) -> Policy:
    """Return the policy of a webhook and a program."""
    tables = (
        f'[destinations.hook]\ntype = "webhook"\nurl = "{receiver.url}"\nsecret_env = "SECRET"\n'
        f'allow_addresses = ["127.0.0.1"]\nlink = "{LINK}"\n'
        '[destinations.program]\ntype = "command"\ncommand = ["/bin/cat"]\n'
    )
    return policy(tables + ROUTES)


async def deliver(options: CommonOptions, name: str, sent: Notification) -> Verdict:
    """Attempt one delivery and return the verdict."""
    destination = create_destination(name, options, ENVIRONMENT)
    try:
        return (await destination.deliver(sent)).verdict
    finally:
        await destination.aclose()


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(["type", "severity", "text", *OPEN_FIELDS]), WORDS, max_size=8))
@example(dict.fromkeys(["type", "severity", "text", *OPEN_FIELDS], "\U0001f600\n<x>"))
@example(dict.fromkeys(["type", "severity", *OPEN_FIELDS], ""))
async def test_any_string_in_any_open_field_arrives(fields: dict[str, str]) -> None:
    """Deliver an alert with unknown values unchanged."""
    read = parse_alert(written(fields))
    assert read.left_out == ()
    async with receiving() as receiver:
        rules = policy_for(receiver)
        decisions = rules.decide(read.alert, NOW)
        for name, decision in decisions.items():
            assert isinstance(decision, Notification), decision
            assert await deliver(rules.config.destinations[name], name, decision) is Verdict.DELIVERED
            _assert_built_for_all(decision)
        json.dumps(explain(rules, read.alert, NOW).to_json())
    (received,) = receiver.received
    arrived = ModerationAlert.model_validate_json(received.body)
    redacted: Any = decisions["hook"]
    assert arrived == redacted.alert
    for name in ("type", "kind", "status", "severity"):
        if name in fields:
            assert getattr(arrived, name) == fields[name]


def _assert_built_for_all(sent: Notification) -> None:
    """Build the messages of the other destinations; their own tests check the limits."""
    body.as_json(slack.message(sent, LINK))
    options = PagerDutyOptions.model_validate({"type": "pagerduty", "routing_key_env": "KEY", "link": LINK})
    assert pagerduty.event(sent, options, "key")["payload"]["severity"] in {"critical", "warning", "info"}
    assert all(labels_of(sent, {}).values())
