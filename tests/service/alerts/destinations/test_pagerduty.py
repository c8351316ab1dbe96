"""Test PagerDuty events against the Events API v2."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from service.alerts.delivery import Verdict
from service.alerts.destinations import body
from service.alerts.destinations.pagerduty import PagerDutyOptions, event
from service.alerts.destinations.registry import create_destination
from tests.notifications import OPEN_FIELDS, alert, digest, finished, notification, notifications, spike
from tests.receivers import receiving, status

if TYPE_CHECKING:
    from service.alerts.delivery import Notification

KEY = "0123456789abcdef" * 2
EVENT = {"routing_key", "event_action", "dedup_key", "client", "payload", "links"}
PAYLOAD = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
REQUIRED = {"summary", "source", "severity"}
"""Required fields of a payload. Names and limits: developer.pagerduty.com, "Send an alert event"."""


def options(**table: Any) -> PagerDutyOptions:
    """Return the options of a table."""
    return PagerDutyOptions.model_validate({"type": "pagerduty", "routing_key_env": "PD", **table})


def sent(what: Notification, **table: Any) -> dict[str, Any]:
    """Return the event for a notification."""
    return event(what, options(**table), KEY)


@settings(max_examples=200)
@given(notifications())
def test_any_alert_is_a_valid_event(what: Notification) -> None:
    """Build an event within PagerDuty's limits for any alert. Otherwise PagerDuty would answer 400."""
    made_of_it = sent(what, dedup_by=["category", "model", "tenant"])
    payload = made_of_it["payload"]
    assert made_of_it.keys() == EVENT
    assert REQUIRED <= payload.keys() <= PAYLOAD
    assert made_of_it["event_action"] in {"trigger", "resolve"}
    assert 0 < len(made_of_it["dedup_key"]) <= 255
    assert 0 < len(payload["summary"]) <= 1024
    assert payload["source"]
    assert payload["severity"] in {"critical", "error", "warning", "info"}
    assert datetime.fromisoformat(payload["timestamp"]).tzinfo
    assert len(body.as_json(made_of_it)) <= 512 * 1024


def test_the_largest_there_can_be() -> None:
    """Keep the largest event within 512 KB, above which PagerDuty refuses it."""
    control, name = "\x01" * 64_000, "\u4e2d" * 9000  # six and three bytes of JSON per character
    of = alert(
        "deltaloom.new", text=control, provider_explanation=control, **dict.fromkeys(OPEN_FIELDS, name)
    )
    huge = notification(of, category=name, rule=name, severity=name)
    several = digest(huge, huge, huge)
    assert several.digest
    lines = replace(several.digest, counts=[(name, 1)] * 60)
    for sent_as in (huge, replace(several, digest=lines, alert=of)):
        assert len(body.as_json(sent(sent_as))) <= 512 * 1024


def test_an_unknown_severity_is_a_warning_there() -> None:
    """Map an unknown severity to `warning`, since PagerDuty refuses other words."""
    payload = sent(notification(severity="severe"))["payload"]
    assert (payload["severity"], payload["custom_details"]["Severity"]) == ("warning", "severe")


def test_an_explanation_is_a_detail() -> None:
    """Add the provider's explanation to the details."""
    details = sent(notification(alert(provider_explanation="About bombs.")))["payload"]["custom_details"]
    assert details["Explanation"] == "About bombs."


def test_alerts_of_one_refusal_share_an_incident() -> None:
    """Use one incident for a refusal's opened and finished alerts."""
    opened, ended = sent(notification()), sent(finished())
    other = sent(notification(alert(response_id="resp_2")))
    assert opened["dedup_key"] == ended["dedup_key"] == "deltaloom/resp_1/0/0/refusal"
    assert other["dedup_key"] != opened["dedup_key"]


def test_similar_alerts_share_an_incident_with_dedup_by() -> None:
    """Use one incident for similar alerts with `dedup_by`."""
    by = {"dedup_by": ["category", "tenant"]}
    first, second = (sent(notification(alert(response_id=each)), **by) for each in ("resp_1", "resp_2"))
    other = sent(notification(alert(tenant=None)), **by)
    assert first["dedup_key"] == second["dedup_key"] == "deltaloom/category='self-harm',tenant='acme'"
    assert other["dedup_key"] == "deltaloom/category='self-harm',tenant=-"
    assert sent(spike(), **by)["dedup_key"] == "deltaloom/refusal-rate/model/gpt-4o"


def test_a_long_key_is_shortened_and_stays_its_own() -> None:
    """Hash the rest of a long key, since PagerDuty takes 255 characters and a cut key would not be unique."""
    one, two = (sent(notification(dedup_key="g" * 300 + each))["dedup_key"] for each in "12")
    assert one != two
    assert len(one) <= 255


def test_the_end_of_a_spike_resolves_and_the_end_of_a_refusal_only_if_asked() -> None:
    """Resolve an ended spike always, and an ended refusal only with `resolve = "all"`."""
    assert [
        sent(each)["event_action"] for each in (notification(), finished(), spike(), spike(ended=True))
    ] == [
        "trigger",
        "trigger",
        "trigger",
        "resolve",
    ]
    assert sent(finished(), resolve="all")["event_action"] == "resolve"
    assert sent(notification(finished().alert, resolves=False), resolve="all")["event_action"] == "trigger"
    with pytest.raises(ValidationError, match="one refusal that ends must not close"):
        options(resolve="all", dedup_by=["model"])


def test_the_page_has_headline_text_and_link() -> None:
    """Show the headline, the text and a link."""
    made_of_it = sent(notification(test=True), link="https://console.example/{response_id}")
    payload, details = made_of_it["payload"], made_of_it["payload"]["custom_details"]
    assert payload["summary"] == "[TEST] A model refuses · self-harm · gpt-4o · tenant acme"
    assert (payload["group"], payload["class"], payload["component"]) == (
        "self-harm",
        "deltaloom.refusal.opened",
        "gpt-4o",
    )
    assert (details["Text"], details["Response"]) == ("I'm sorry, but I can't help with that.", "resp_1")
    assert made_of_it["links"] == [{"href": "https://console.example/resp_1", "text": "Open the response"}]


async def test_it_is_enqueued_and_the_key_stays_secret() -> None:
    """Post the event, and keep the routing key out of the logged answer."""
    async with receiving(status(202), status(400, f'{{"errors": ["{KEY} is no key"]}}')) as receiver:
        destination = create_destination(
            "on-call", options(url=receiver.url, allow_addresses=["127.0.0.1"]), {"PD": KEY}
        )
        first, second = [await destination.deliver(notification()) for _ in range(2)]
        await destination.aclose()
    assert (first.verdict, second.verdict) == (Verdict.DELIVERED, Verdict.REFUSED)
    assert second.answer == '400 Bad Request: {"errors": ["… is no key"]}'
    assert receiver.received[0].json == sent(notification())
